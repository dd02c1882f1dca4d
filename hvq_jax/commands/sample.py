"""Draw images from a trained run, or pass your own through its autoencoder.

    python sample.py --workdir=runs/a --num_samples=64 --label=3 --temperature=0.9 --top_p=0.95 --seed=1 --out=grid.png
    python sample.py --workdir=runs/a --complete=FOLDER_OR_IMAGE --rows=3 --num_samples=8 --out=completed.png
    python sample.py --workdir=runs/a --vary=FOLDER_OR_IMAGE --num_samples=8 --out=varied.png
    python sample.py --workdir=runs/a --reconstruct=FOLDER_OR_IMAGE --out=recon.png
    python sample.py --workdir=runs/a --reconstruct=FOLDER_OR_IMAGE --out=codes.npz
    python sample.py --workdir=runs/a --decode=codes.npz --out=decoded.png
    python sample.py --workdir=runs/a --num_samples=100000 --out=samples

--out=FILE.png writes one grid of all images; --out=FILE.npz the arrays images, indices, gains and latents (without an
autoencoder: indices, lengths and residuals), with labels, class_names and the names of your images, and a digest of
the autoencoder that they are of; --out=FOLDER one PNG per image. The config is read from the workdir.

--decode reads such an .npz again, or one with indices from elsewhere: each code is multiplied by its gain (1 without
gains), and its residual added; where the array latents is there, it is what the decoder sees.

--vary draws each continuous part given its own code and everything before it in raster order, with the codes forced:
p(part | code, before). The codes behind it say something about it, too: --proposals=M draws from p(parts | all codes)
instead, up to the finite number: it chooses each draw from M of the former by the probability of the codes, and says
how many of the M were effective. The more, the closer.
"""

import argparse
import dataclasses
from functools import partial

from hvq_jax.devices.parallel import find_devices
from hvq_jax.errors import UserError
from hvq_jax.files import full_path
from hvq_jax.priors.sampling import SamplingOptions
from hvq_jax.runs.decode_command import decode_file
from hvq_jax.runs.sample_command import complete_images, draw_samples, reconstruct_files, vary_images

# Options of sampling; those of the prior are declared in `SamplingOptions`.
DRAWING = {
    "num_samples": (int, "number of samples (default: 64), or of samples per image (default: 8)"),
    "label": (
        str,
        "class of all samples, name or number (default: all in turn; for given images that of their folder, or none)",
    ),
    **{
        field.name: (field.type, f"{field.metadata['rule'].help} (default: {field.default:g})")
        for field in dataclasses.fields(SamplingOptions)
    },
    "seed": (int, "seed; the same seed gives the same samples (default: 0)"),
}


_HELP_COLUMNS = 120


class OneLineParser(argparse.ArgumentParser):
    """An argument parser with one-line errors, whose help text has the same lines everywhere."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description,
            usage=argparse.SUPPRESS,  # the description has it, by examples
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=_HELP_COLUMNS),
        )

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise UserError instead of printing the usage."""
        raise UserError(f"{message} (see --help)")


def path_argument(text: str) -> str:
    """Return a path with a leading ~ expanded; raise ArgumentTypeError for an empty one, as of an unset variable."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, not empty")
    return str(full_path(text))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = OneLineParser(description=__doc__)
    options.add_argument("--workdir", type=path_argument, required=True, help="folder of a trained run")
    options.add_argument(
        "--out", type=path_argument, required=True, help="a .png, a .npz, or a folder for one PNG per image"
    )
    what = options.add_mutually_exclusive_group()
    for name, text in {
        "reconstruct": "encode and decode an image or a folder of images",
        "complete": "keep the top --rows of each latent, draw the rest",
        "vary": "keep the codes of each latent, draw the continuous parts: see above, and --proposals",
        "decode": "decode the indices, gains and residuals, or latents, in an .npz",
    }.items():
        what.add_argument(
            f"--{name}", type=path_argument, metavar="FILE.npz" if name == "decode" else "PATH", help=text
        )
    options.add_argument("--rows", type=int, default=argparse.SUPPRESS, help="rows that --complete keeps (default: 3)")
    options.add_argument(
        "--proposals",
        type=int,
        default=argparse.SUPPRESS,
        help="what --vary chooses each draw from, to draw given all codes (default: 1, with the codes forced)",
    )
    for name, (kind, text) in DRAWING.items():
        # No default, to distinguish options that were given from those that were not.
        options.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)
    return options


def run(arguments: list[str]) -> None:
    """Draw or reconstruct, depending on the command line."""
    options = parser().parse_args(arguments)
    for name, value in vars(options).items():
        if isinstance(value, list):  # what argparse makes of "--label=--"
            raise UserError(f"argument --{name}: -- is no value (see --help)")
    find_devices()
    drawing = {name: getattr(options, name) for name in (*DRAWING, "rows", "proposals") if hasattr(options, name)}
    for what, command in (("reconstruct", reconstruct_files), ("decode", decode_file)):
        if path := getattr(options, what):
            for name in drawing:
                raise UserError(f"--{name} does not apply to --{what}, which draws nothing: omit one of them")
            return command(options.workdir, path, options.out)
    for name, what in (("rows", "complete"), ("proposals", "vary")):
        if name in drawing and not getattr(options, what):
            raise UserError(f"--{name} is for --{what}=PATH: add that, or omit --{name}")
    if options.complete:
        return complete_images(options.workdir, options.complete, options.out, **drawing)
    if options.vary:
        return vary_images(options.workdir, options.vary, options.out, **drawing)
    return draw_samples(options.workdir, options.out, **drawing)
