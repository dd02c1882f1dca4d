"""Draw images from a trained run, or send your own through its autoencoder.

    python sample.py --workdir=runs/a --num_samples=64 --label=3 --temperature=0.9 --top_p=0.95 --seed=1 --out=grid.png
    python sample.py --workdir=runs/a --complete=FOLDER_OR_IMAGE --rows=3 --num_samples=8 --label=3 --out=completed.png
    python sample.py --workdir=runs/a --vary=FOLDER_OR_IMAGE --num_samples=8 --label=3 --out=varied.png
    python sample.py --workdir=runs/a --reconstruct=FOLDER_OR_IMAGE --out=recon.png
    python sample.py --workdir=runs/a --reconstruct=FOLDER_OR_IMAGE --out=codes.npz
    python sample.py --workdir=runs/a --num_samples=100000 --out=samples

A .npz holds images, indices, gains and latents instead of a picture; a folder holds a PNG of each image. The run knows
its own config.
"""

import argparse
import sys
from functools import partial

from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options

set_cpu_options()  # before anything uses a device
keep_compiled_programs()

from hvq_jax.errors import UserError, exit_status
from hvq_jax.runs.commands import complete_images, draw_samples, reconstruct_files, vary_images
from hvq_jax.training.logging import set_quiet

# Of what draws, with the defaults in brackets.
DRAWING = {
    "num_samples": (int, "images to draw (64), or draws of each image (8)"),
    "label": (str, "class of every sample, name or number; default: all in turn, or none for images given"),
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
    options.add_argument("--out", required=True, help="a .png, a .npz with the latents, or a folder for a PNG of each")
    what = options.add_mutually_exclusive_group()
    what.add_argument("--reconstruct", metavar="PATH", help="an image, or a folder of images, and nothing drawn")
    what.add_argument("--complete", metavar="PATH", help="likewise: the top --rows of its latent kept, the rest drawn")
    what.add_argument("--vary", metavar="PATH", help="likewise: its codes kept, their continuous parts drawn")
    options.add_argument("--rows", type=int, default=argparse.SUPPRESS, help="of the latent that --complete keeps (3)")
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
    drawing = {name: getattr(options, name) for name in (*DRAWING, "rows") if hasattr(options, name)}
    if options.reconstruct:
        for name in drawing:
            raise UserError(f"--{name} has no meaning with --reconstruct, which draws nothing: leave one of them out")
        return reconstruct_files(options.workdir, options.reconstruct, options.out)
    if options.complete:
        return complete_images(options.workdir, options.complete, options.out, **drawing)
    if "rows" in drawing:
        raise UserError("--rows is for --complete=PATH: leave one of them out or say both")
    if options.vary:
        return vary_images(options.workdir, options.vary, options.out, **drawing)
    return draw_samples(options.workdir, options.out, **drawing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
