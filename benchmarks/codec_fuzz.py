"""What becomes of damaged .hvq files.

    python -m benchmarks.codec_fuzz --workdir=RUN --count=2000

Each damage is a flipped bit or, in one of four cases, a missing end, in a file of one image of the run's test split. It
is noticed if decompression raises an error; `silent` counts files that decompress to other images without one. The exit
status is 1 if there are any.
"""

import argparse
import collections
import sys

import numpy as np

from benchmarks.measuring.command import Parser, check_at_least
from hvq_jax.command import exit_status
from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options
from hvq_jax.errors import UserError
from hvq_jax.progress import progress_bar

set_cpu_options()  # before anything uses a device
keep_compiled_programs()

_NUM_FILES = 10


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return `data` with one bit flipped or, in one of four cases, without its end."""
    if rng.random() < 0.25:
        return data[: rng.integers(len(data))]
    flipped = bytearray(data)
    flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def count_outcomes(workdir: str, count: int, *, portable: bool, seed: int) -> dict[str, int]:
    """Return how many of `count` damages are noticed, change no image, and change one silently."""
    from hvq_jax.runs.compression import compress, decompress
    from hvq_jax.runs.compression_inputs import of_split
    from hvq_jax.runs.trained import TrainedRun

    run, rng = TrainedRun.load(workdir), np.random.default_rng(seed)
    images = [image for image, _ in zip(of_split(run, "test").read(), range(_NUM_FILES), strict=False)]
    files = [compress(run, image[None], portable=portable) for image in images]
    expected = [decompress(run, data).images for data in files]
    found = collections.Counter(noticed=0, unchanged=0, silent=0)
    with progress_bar(total=count, desc="Damages") as progress:
        for number in range(count):
            which = number % len(files)
            try:
                result = decompress(run, damaged(files[which], rng)).images
                found["unchanged" if np.array_equal(result, expected[which]) else "silent"] += 1
            except UserError:
                found["noticed"] += 1
            progress.update()
    return found


def main(arguments: list[str]) -> None:
    """Damage files and print the counts; raise UserError if a damage was silent."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="folder of a trained run")
    parser.add_argument("--count", type=int, default=2000, help="number of damages, default %(default)s")
    parser.add_argument("--portable", action="store_true", help="of portable files")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    options = parser.parse_args(arguments)
    check_at_least(options, count=1, seed=0)
    found = count_outcomes(options.workdir, options.count, portable=options.portable, seed=options.seed)
    print(f"{options.count:,} damages: " + ", ".join(f"{count:,} {name}" for name, count in found.items()))
    if found["silent"]:
        raise UserError(f"{found['silent']} damaged files gave other images without an error")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
