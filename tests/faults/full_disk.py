"""A disk that is too small for the data, one that fills up during training, and one that is read-only: one clear line,
earlier checkpoints intact, and the run resumes when there is room again. Mounts a tmpfs, so it must be run by root.

    python tests/faults/full_disk.py
"""

import shutil
import subprocess

from harness import CHECKPOINTS, Bench, check, check_equal, finish, what_it_left


def mount(folder: object, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def last_line(process: "subprocess.Popen[str]") -> str:
    """Return the last line of a run that must fail."""
    output, _ = process.communicate(timeout=300)
    check(process.returncode == 1, f"ended with status {process.returncode}:\n{output}")
    check(output.count("error: ") == 1 and "Traceback" not in output, f"more than one clear line:\n{output}")
    return output.splitlines()[-1]


def main() -> None:
    bench = Bench()
    keep_all = "--config.autoencoder.keep_checkpoints=100"
    finish(bench.start(bench.folder / "uninterrupted", keep_all))
    expected = what_it_left(bench.folder / "uninterrupted")
    disk = bench.folder / "disk"
    disk.mkdir()
    mount(disk, "size=1m")
    try:
        line = last_line(bench.start(bench.folder / "no_data", f"--config.data.data_dir={disk}"))
        print(line)
        check("fashion_mnist_mini needs" in line and "--config.data.data_dir=DIR" in line, "the line does not say why")
        check(not list(disk.rglob("*.array_record*")), "half a data set was left behind")

        mount(disk, "remount,size=4m")
        workdir = disk / "run"
        line = last_line(bench.start(workdir, keep_all))
        print(line)
        check("No space left on device" in line, "the line does not say why")
        steps = [int(path.name) for path in (workdir / CHECKPOINTS / "autoencoder").iterdir() if path.name.isdigit()]
        check(len(steps) > 2 and f"step {max(steps)} is the newest" in line, f"the line does not name step {steps}")

        mount(disk, "remount,ro")
        line = last_line(bench.start(workdir, keep_all))
        print(line)
        check("not writable (Read-only file system)" in line, "the line does not say why")

        mount(disk, "remount,rw,size=100m")
        output = finish(bench.start(workdir, keep_all))
        check(f"resumes from the checkpoint of step {max(steps)}" in output, f"it did not resume from there:\n{output}")
        check("is not usable" not in output, f"an earlier checkpoint was damaged:\n{output}")
        check_equal(what_it_left(workdir), expected)
        print("with room again the run ended bit-identical to one that never ran out of it")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    shutil.rmtree(bench.folder)


if __name__ == "__main__":
    main()
