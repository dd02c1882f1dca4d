"""Two processes of two devices: SIGTERM to one of them, kill -9 of each; the job resumes every time and ends
bit-identical to one that was never interrupted.

    python tests/faults/cluster.py
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from harness import CHECKPOINTS, Bench, check, check_equal, finish, wait_until, what_it_left

HEARTBEAT_SECONDS = 30


def process_ids(workdir: Path) -> dict[int, int]:
    """Return the pid of each process of the run in `workdir`, by its number in the cluster."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            environment = dict(
                part.split(b"=", 1) for part in (folder / "environ").read_bytes().split(b"\0") if b"=" in part
            )
        except OSError:  # ended meanwhile
            continue
        program = len(arguments) > 1 and arguments[1].endswith(b"train.py")
        if program and f"--workdir={workdir}".encode() in arguments:
            found[int(environment[b"HVQ_PROCESS_ID"])] = int(folder.name)
    return found


def signal_one(process: "subprocess.Popen[str]", workdir: Path, number: int, kind: signal.Signals, step: int) -> None:
    """Send `kind` to one process once the checkpoint of `step` exists."""
    there = wait_until(lambda: (workdir / CHECKPOINTS / "autoencoder" / str(step)).exists(), process)
    check(there, f"ended before step {step}")
    os.kill(process_ids(workdir)[number], kind)


def main() -> None:
    bench = Bench()
    finish(bench.start_two(bench.folder / "uninterrupted"))
    expected = what_it_left(bench.folder / "uninterrupted")
    print("uninterrupted: done", flush=True)
    workdir = bench.folder / "run"

    process = bench.start_two(workdir)
    signal_one(process, workdir, 1, signal.SIGTERM, step=2)
    began = time.monotonic()
    output = finish(process)
    check("stopped by SIGTERM" in output, f"it did not say that it was stopped:\n{output}")
    check("stopped by SIGTERM" in Path(f"{workdir}-logs/1.log").read_text(), "process 1 did not stop with process 0")
    print(f"SIGTERM to process 1: both saved and ended with status 0 in {time.monotonic() - began:.1f} s", flush=True)

    for victim, step in ((1, 8), (0, 14)):
        process = bench.start_two(workdir)
        signal_one(process, workdir, victim, signal.SIGKILL, step=step)
        began = time.monotonic()
        output, _ = process.communicate(timeout=120)
        seconds = time.monotonic() - began
        check(process.returncode != 0, "the launcher reported success")
        check(f"error: process {victim} was killed by signal 9" in output, f"the launcher did not name it:\n{output}")
        check(seconds < HEARTBEAT_SECONDS + 15, f"the other process took {seconds:.0f} s to end")
        check(not process_ids(workdir), "a process is still running")
        print(f"kill -9 of process {victim}: named, the other ended in {seconds:.1f} s", flush=True)

    finish(bench.start_two(workdir))
    left = what_it_left(workdir)
    # The save that SIGTERM asked for logs the steps before it on their own.
    check_equal(left, expected)
    print("the job ended bit-identical to the uninterrupted one")
    shutil.rmtree(bench.folder)


if __name__ == "__main__":
    main()
