"""Seconds from starting `train.py` to its first training step, as seen by a user, with and without compiled programs.

    python -m benchmarks.startup                                                    # two minutes on two cores
    python -m benchmarks.startup --runs=5 --config=configs/fashion_mnist.py --options=--config.data.manual_dir=DIR

"cold" is the very first start, which compiles every program into an empty cache folder. "with the cache" is any later
start, of any run with the same shapes. The clock runs from before the process starts until its report of the first step
is read; the data set is already prepared. Python's own files are in the system's memory, as after any earlier import.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring.command import Parser, check_at_least
from hvq_jax.command import exit_status
from hvq_jax.errors import UserError

_ROOT = Path(__file__).parents[1]


def seconds_to_first_step(arguments: Sequence[str], folder: Path, cache: Path) -> float:
    """Return the time of one run in a new workdir, which is stopped after its first step."""
    workdir = tempfile.mkdtemp(dir=folder)
    own = (f"--workdir={workdir}", "--config.stage=autoencoder", "--config.autoencoder.log_every_steps=1")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    start = time.perf_counter()
    command = [sys.executable, "train.py", *arguments, *own]
    with subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = any(line.startswith("autoencoder step 1/") for line in process.stdout)
        seconds = time.perf_counter() - start
        process.kill()
    if not reported:
        raise UserError("the run ended before its first step, see above")
    return seconds


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind, default %(default)s")
    parser.add_argument("--config", default="configs/quickstart.py", help="default %(default)s")
    parser.add_argument("--options", nargs="*", default=[], help="further arguments for train.py, as --options=ONE")
    options = parser.parse_args(arguments)
    check_at_least(options, runs=1)
    with tempfile.TemporaryDirectory(prefix="hvq_jax_startup_") as name:
        folder = Path(name)
        train_arguments = [f"--config={options.config}", f"--config.data.data_dir={folder / 'data'}", *options.options]
        seconds_to_first_step(train_arguments, folder, folder / "warm")  # prepares the data and fills the cache
        print("| start | median s | shortest | longest |\n|---|---|---|---|", flush=True)
        for kind, caches in (
            ("cold", [folder / f"cold_{run}" for run in range(options.runs)]),
            ("with the cache", [folder / "warm"] * options.runs),
        ):
            times = [seconds_to_first_step(train_arguments, folder, cache) for cache in caches]
            print(f"| {kind} | {statistics.median(times):.1f} | {min(times):.1f} | {max(times):.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
