"""Compress images with a trained run into .hvq files, and decompress them.

    python compress.py --workdir=runs/a --compress=FOLDER_OR_IMAGE_OR_NPZ --out=images.hvq
    python compress.py --workdir=runs/a --compress=FOLDER --out=FOLDER_OF_FILES      # one .hvq per image
    python compress.py --workdir=runs/a --split=test --out=test.hvq                  # of the run's data set
    python compress.py --workdir=runs/a --decompress=images.hvq --out=images         # or --out=images.npz
    python compress.py --info=images.hvq

Decompressed images are those that the run makes of the latents of the given ones (sample.py --reconstruct, with gains
and residuals rounded). A file can be read with the same run; unless --portable, on the same kind of machine and with
the same versions of JAX, since the probabilities of the codes have to be the same to the last bit. Each file is decoded
before it is reported as written.
"""

import argparse

from hvq_jax.commands.sample import OneLineParser, path_argument
from hvq_jax.data.held_out import SPLITS
from hvq_jax.devices.parallel import find_devices
from hvq_jax.errors import UserError
from hvq_jax.runs.compress_files import compress_images, decompress_files, describe_file


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = OneLineParser(description=__doc__)
    what = options.add_mutually_exclusive_group(required=True)
    what.add_argument("--compress", type=path_argument, metavar="PATH", help="an image, a folder of images, or an .npz")
    what.add_argument("--split", choices=SPLITS, help="compress a split of the run's data set")
    what.add_argument("--decompress", type=path_argument, metavar="PATH", help="an .hvq file, or a folder of them")
    what.add_argument("--info", type=path_argument, metavar="FILE", help="say what an .hvq file holds")
    options.add_argument("--workdir", type=path_argument, help="folder of a trained run")
    options.add_argument("--out", type=path_argument, help="file or folder to write")
    options.add_argument("--label", help="class of all images, name or number (default: that of their folder, or none)")
    options.add_argument("--no-labels", action="store_true", help="leave the classes out, of the file and of the prior")
    options.add_argument(
        "--portable",
        action="store_true",
        help="make a file that other machines and versions of JAX can read (slower, hardly more bytes)",
    )
    options.add_argument("--bare", action="store_true", help="leave out headers and checksums, to measure the rate")
    return options


def run(arguments: list[str]) -> None:
    """Compress, decompress or describe, depending on the command line."""
    options = parser().parse_args(arguments)
    compressing = options.compress is not None or options.split is not None
    for name in ("label", "no_labels", "portable", "bare"):
        if getattr(options, name) and not compressing:
            raise UserError(f"--{name.replace('_', '-')} is for compressing: omit it")
    if options.label is not None and options.no_labels:
        raise UserError("--label names a class and --no-labels leaves it out: omit one of them")
    if options.info is not None:
        if options.out is not None:
            raise UserError("--out does not apply to --info, which writes nothing: omit it")
        if options.workdir is not None:
            find_devices()
        return describe_file(options.info, options.workdir)
    for name in ("workdir", "out"):
        if getattr(options, name) is None:
            raise UserError(f"--{name} is required (see --help)")
    find_devices()
    if options.decompress is not None:
        return decompress_files(options.workdir, options.decompress, options.out)
    return compress_images(
        options.workdir,
        options.out,
        path=options.compress,
        split=options.split,
        label=options.label,
        labels=not options.no_labels,
        portable=options.portable,
        bare=options.bare,
    )
