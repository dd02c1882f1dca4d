"""Draw images from a trained run, or send your own through its autoencoder.

    python sample.py --workdir=runs/a --num_samples=64 --label=3 --temperature=0.9 --top_p=0.95 --seed=1 --out=grid.png
    python sample.py --workdir=runs/a --reconstruct=FOLDER_OR_IMAGE --out=recon.png
    python sample.py --workdir=runs/a --reconstruct=FOLDER_OR_IMAGE --out=codes.npz

A .npz holds images, indices, gains and latents instead of a picture. The run knows its own config.
"""

import argparse
import sys
from functools import partial

from hvq_jax.training.xla import keep_compiled_programs, set_cpu_options

set_cpu_options()  # before anything uses a device
keep_compiled_programs()

from hvq_jax.commands import reconstruct_files, sample_grid
from hvq_jax.errors import UserError, exit_status
from hvq_jax.training.logging import set_quiet

# Of `sample_grid`, with its defaults in brackets.
DRAWING = {
    "num_samples": (int, "images to draw (64)"),
    "label": (str, "class of every sample, name or number; default: all in turn"),
    "temperature": (float, "of codes; 0: the most probable (1)"),
    "continuous_temperature": (float, "of gains and residuals; 0: the most probable (1)"),
    "top_k": (int, "draw from the k most probable; 0: off (0)"),
    "top_p": (float, "draw from this mass; 1: off (1)"),
    "guidance": (float, "classifier-free guidance of the codes; 0: off (0)"),
    "seed": (int, "same seed, same samples (0)"),
}


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
    for name, (kind, text) in DRAWING.items():
        # Without a default, so that an option given together with --reconstruct can be told from one left out.
        options.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)
    return options


def main(arguments: list[str]) -> int:
    """Runs the command; the exit status."""
    set_quiet()
    return exit_status(partial(run, arguments))


def run(arguments: list[str]) -> None:
    """Draws or reconstructs, as the command line asks."""
    options = parser().parse_args(arguments)
    if not options.reconstruct:
        drawing = {name: getattr(options, name) for name in DRAWING if hasattr(options, name)}
        return sample_grid(options.workdir, options.out, **drawing)
    for name in DRAWING:
        if hasattr(options, name):
            raise UserError(f"--{name} has no meaning with --reconstruct, which draws nothing: leave one of them out")
    return reconstruct_files(options.workdir, options.reconstruct, options.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
