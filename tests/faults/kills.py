"""kill -9 at random moments, every other time in the middle of a checkpoint write; each resumed run must end
bit-identical to one that was never interrupted.

    python tests/faults/kills.py --kills=20
"""

import argparse
import random
import shutil
import time
from pathlib import Path

from harness import CHECKPOINTS, Bench, check, check_equal, finish, wait_until, what_it_left


def is_written(folder: Path, step: int) -> bool:
    """Return whether a checkpoint of `step`, or of a later step if that was missed, is being written."""
    return any(int(path.name.split(".")[0]) >= step for path in folder.glob("*.orbax-checkpoint-tmp"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs to kill (20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    bench = Bench()
    finish(bench.start(bench.folder / "warm"))  # compiles, so that the next run takes as long as the killed ones
    began = time.monotonic()
    finish(bench.start(bench.folder / "uninterrupted"))
    duration = time.monotonic() - began
    expected = what_it_left(bench.folder / "uninterrupted")
    print(f"uninterrupted: {duration:.1f} s")

    in_write = 0
    for number in range(options.kills):
        workdir = bench.folder / f"killed_{number}"
        process = bench.start(workdir)
        began = time.monotonic()
        if number % 2:
            stage, step = chance.choice([("autoencoder", chance.randint(1, 20)), ("prior", chance.randint(1, 10))])
            folder = workdir / CHECKPOINTS / stage
            wait_until(lambda folder=folder, step=step: is_written(folder, step), process)
        else:
            time.sleep(chance.uniform(0.2, 1.0) * duration)
        process.kill()
        delay = time.monotonic() - began
        process.communicate()
        unfinished = [path.name for path in workdir.glob("checkpoints/*/*.orbax-checkpoint-tmp")]
        in_write += bool(unfinished)
        saved = [path for path in (workdir / CHECKPOINTS).glob("*/*") if path.name.isdigit()]
        finish(bench.start(workdir))
        check_equal(what_it_left(workdir), expected)
        print(
            f"kill {number + 1}/{options.kills} after {delay:.1f} s, {len(saved)} checkpoints there, "
            f"{', '.join(unfinished) or 'none'} being written: ended bit-identical",
            flush=True,
        )
        shutil.rmtree(workdir)
    check(in_write > 0 or options.kills < 2, "no kill fell into the writing of a checkpoint")
    print(f"{options.kills} kills, {in_write} of them in the middle of a checkpoint: all ended bit-identical")
    shutil.rmtree(bench.folder)


if __name__ == "__main__":
    main()
