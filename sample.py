"""Draw images from a trained run, or send your own through its autoencoder.

    python sample.py --workdir=runs/a --num_samples=64 --label=3 --temperature=0.9 --top_p=0.95 --seed=1 --out=grid.png
    python sample.py --workdir=runs/a --reconstruct=FOLDER_OR_IMAGE --out=recon.png
    python sample.py --workdir=runs/a --reconstruct=FOLDER_OR_IMAGE --out=codes.npz

A .npz holds images, indices, gains and latents instead of a picture. The run knows its own config.
"""

import argparse
import sys

from absl import logging

from hvq_jax.training.xla import set_cpu_options

set_cpu_options()  # before anything uses a device

from hvq_jax.commands import reconstruct_files, sample_grid
from hvq_jax.errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises UserError in place of printing the usage."""
        raise UserError(f"{message} (see --help)")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workdir", required=True, help="folder of a trained run")
    options.add_argument("--out", required=True, help="a .png, or a .npz with the latents")
    options.add_argument("--reconstruct", metavar="PATH", help="an image, or a folder of images")
    options.add_argument("--num_samples", type=int, default=64, help="images to draw (64)")
    options.add_argument("--label", help="class of every sample, name or number; default: all in turn")
    options.add_argument("--temperature", type=float, default=1.0, help="0: most probable codes (1)")
    options.add_argument("--top_k", type=int, default=0, help="draw from the k most probable; 0: off")
    options.add_argument("--top_p", type=float, default=1.0, help="draw from this mass; 1: off")
    options.add_argument("--seed", type=int, default=0, help="same seed, same samples (0)")
    return options


def main(arguments: list[str]) -> int:
    """Runs the command; the exit status."""
    logging.set_verbosity(logging.ERROR)  # Orbax and TFDS warn about what is meant
    try:
        options = parser().parse_args(arguments)
        if options.reconstruct:
            reconstruct_files(options.workdir, options.reconstruct, options.out)
        else:
            sample_grid(
                options.workdir,
                options.out,
                num_samples=options.num_samples,
                label=options.label,
                seed=options.seed,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
            )
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that went away
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
