"""Write the first test images of a trained run and their reconstructions, for the results of a study.

    python -m studies.reconstruct WORKDIR FILE.npz --count=16

It is a separate process, so that the one that starts the runs takes no memory of the device.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from hvq_jax.command import exit_status
from hvq_jax.data.datasets import open_dataset
from hvq_jax.files import whole_file
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.logging import set_quiet


def main(arguments: list[str]) -> None:
    """Write `originals` and `reconstructions`, `[count, H, W, C]` uint8 each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="a run with a trained autoencoder")
    parser.add_argument("file", type=Path, help="the .npz to write")
    parser.add_argument("--count", type=int, default=16, help="number of images (default: 16)")
    options = parser.parse_args(arguments)
    set_quiet()
    run = TrainedRun.load(options.workdir)
    originals, _ = open_dataset(run.options.data).test.read(np.arange(options.count))
    reconstructions = np.concatenate([piece.images for piece in run.reconstruct(originals)])
    with whole_file(options.file) as path, path.open("wb") as file:
        np.savez_compressed(file, originals=originals, reconstructions=reconstructions)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
