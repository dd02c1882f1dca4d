"""Write a report of one or several trained runs: a single HTML file, to be opened in a browser.

    python report.py --workdir=runs/a                                              # writes runs/a/report.html
    python report.py --workdir=runs/a --workdir=runs/b --out=report.html           # side by side

It has the curves of training, reconstructions with their errors, samples beside the nearest training images, what a
classifier says of them, the rates, maps of the latent, an atlas of the codebook, and the settings; each figure says
what it shows, and what good and bad look like. The file loads nothing from elsewhere, and is smaller than 5 MB
unless it is of very many runs.
"""

import argparse

from hvq_jax.commands.sample import OneLineParser, path_argument
from hvq_jax.devices.parallel import find_devices
from hvq_jax.errors import UserError
from hvq_jax.report.write import write_report


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = OneLineParser(description=__doc__)
    options.add_argument(
        "--workdir", type=path_argument, required=True, action="append", help="folder of a trained run; may be repeated"
    )
    options.add_argument("--out", type=path_argument, help="a .html to write (default: report.html in the workdir)")
    options.add_argument(
        "--num_images", type=int, default=1000, help="test images to measure, and samples to draw (default: 1000)"
    )
    options.add_argument("--seed", type=int, default=0, help="of the samples and of the classifier (default: 0)")
    return options


def run(arguments: list[str]) -> None:
    """Write the report that the command line asks for."""
    options = parser().parse_args(arguments)
    if options.num_images < 1:
        raise UserError(f"--num_images={options.num_images}: must be at least 1")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed={options.seed}: must be from 0 to {2**32 - 1}")
    find_devices()
    path = write_report(options.workdir, options.out, num_images=options.num_images, seed=options.seed)
    print(f"wrote {path}")
