"""Seconds from starting `train.py` to its first training step, as a user sees them, with and without compiled programs.

    python -m benchmarks.startup                                                    # two minutes on two cores
    python -m benchmarks.startup --runs=5 --config=configs/fashion_mnist.py --options=--config.data.manual_dir=DIR

Cold is the first start of all: every program is compiled, into a folder that was empty. With the cache is every later
start, of any run with the same shapes. The clock runs from before the process is started until its report of the first
step is read; the data set has been prepared. Python's own files are in the memory of the system, as after any import.
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

_ROOT = Path(__file__).parents[1]


def seconds_to_first_step(arguments: Sequence[str], folder: Path, cache: Path) -> float:
    """Starts one run in a workdir of its own and ends it after its first step."""
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
        raise SystemExit("error: the run ended before its first step, see above")
    return seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each kind, default %(default)s")
    parser.add_argument("--config", default="configs/quickstart.py", help="default %(default)s")
    parser.add_argument("--options", nargs="*", default=[], help="more arguments for train.py; written --options=ONE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hvq_jax_startup_") as name:
        folder = Path(name)
        arguments = [f"--config={options.config}", f"--config.data.data_dir={folder / 'data'}", *options.options]
        seconds_to_first_step(arguments, folder, folder / "warm")  # prepares the data and fills the cache
        print("| start | median s | shortest | longest |\n|---|---|---|---|", flush=True)
        for kind, caches in (
            ("cold", [folder / f"cold_{run}" for run in range(options.runs)]),
            ("with the cache", [folder / "warm"] * options.runs),
        ):
            times = [seconds_to_first_step(arguments, folder, cache) for cache in caches]
            print(f"| {kind} | {statistics.median(times):.1f} | {min(times):.1f} | {max(times):.1f} |", flush=True)


if __name__ == "__main__":
    main()
