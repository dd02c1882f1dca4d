"""Evaluate a trained run on images: what they cost, by its prior and as a file, and how well they come back.

    python evaluate.py --workdir=runs/a
    python evaluate.py --workdir=runs/a --split=validation --num_images=1000 --out=validation.json
    python evaluate.py --workdir=runs/a --images=FOLDER_OR_IMAGE_OR_NPZ --portable

The images are compressed into an .hvq file as compress.py does, which is read back: its size in bits per image is
printed beside the bits under the prior, and MSE on [-1, 1], PSNR and SSIM of the images in the file beside those of the
reconstructions, whose gains and residuals are not rounded. The time per image is that of the whole way, from images to
a verified file and from the file to images, without compilation. --out writes these and all other metrics as JSON.
"""

import argparse

from hvq_jax.commands.sample import OneLineParser, path_argument
from hvq_jax.data.held_out import SPLITS
from hvq_jax.devices.parallel import find_devices
from hvq_jax.errors import UserError
from hvq_jax.runs.evaluate_command import evaluate_run


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = OneLineParser(description=__doc__)
    options.add_argument("--workdir", type=path_argument, required=True, help="folder of a trained run")
    what = options.add_mutually_exclusive_group()
    what.add_argument("--split", choices=SPLITS, help="a split of the run's data set (default: test)")
    what.add_argument("--images", type=path_argument, metavar="PATH", help="an image, a folder of images, or an .npz")
    options.add_argument("--num_images", type=int, help="images of the split, evenly spaced (default: all)")
    options.add_argument("--label", help="class of all images, name or number (default: their own, or none)")
    options.add_argument("--no-labels", action="store_true", help="leave the classes out, of the file and of the prior")
    options.add_argument("--portable", action="store_true", help="make the file one that other machines can read")
    options.add_argument("--out", type=path_argument, help="a .json to write")
    return options


def run(arguments: list[str]) -> None:
    """Evaluate as the command line says."""
    options = parser().parse_args(arguments)
    if options.label is not None and options.no_labels:
        raise UserError("--label names a class and --no-labels leaves it out: omit one of them")
    if options.num_images is not None and options.images is not None:
        raise UserError("--num_images is for a split of the run's data set: omit it, or --images")
    if options.num_images is not None and options.num_images < 1:
        raise UserError(f"--num_images={options.num_images}: must be at least 1")
    find_devices()
    evaluate_run(
        options.workdir,
        options.out,
        path=options.images,
        split=options.split or "test",
        num_images=options.num_images,
        label=options.label,
        labels=not options.no_labels,
        portable=options.portable,
    )
