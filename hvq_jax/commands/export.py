"""Export a trained run, for use without it: as programs for JAX or ONNX, or as weights.

    python export.py --workdir=runs/a --format=jax --out=exported
    python export.py --workdir=runs/a --format=jax --platforms=cpu,cuda --guidance=0.5 --out=exported
    python export.py --workdir=runs/a --format=safetensors --out=weights
    python export.py --workdir=runs/a --format=onnx --out=models

  jax           encoder, decoder and sampler; any process runs them that has JAX and flatbuffers
  safetensors   all arrays in one file, with a model card
  onnx          encoder and decoder

Programs take any batch size. The folder's README.md says how to use it; `hvq_jax.load_exported` opens one in the format
jax.
"""

import argparse
import dataclasses

from hvq_jax.commands.sample import OneLineParser, path_argument
from hvq_jax.devices.parallel import find_devices
from hvq_jax.errors import ArgumentError
from hvq_jax.export.jax_programs import DEFAULT_PLATFORMS, PLATFORMS
from hvq_jax.export.run import FORMATS, export_run
from hvq_jax.priors.sampling import SamplingOptions

SAMPLING = dataclasses.fields(SamplingOptions)

# The flag of each argument of `export_run` that is not called like it.
_FLAGS = {"folder": "out"}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = OneLineParser(description=__doc__)
    options.add_argument("--workdir", type=path_argument, required=True, help="folder of a trained run")
    options.add_argument("--out", type=path_argument, required=True, help="the folder to write, new or empty")
    options.add_argument("--format", required=True, metavar="|".join(FORMATS), help="what to write")
    options.add_argument(
        "--platforms",
        default=argparse.SUPPRESS,
        help=f"of jax: some of {', '.join(PLATFORMS)} (default: {','.join(DEFAULT_PLATFORMS)})",
    )
    for field in SAMPLING:
        text = f"of jax's sampler: {field.metadata['rule'].help} (default: {field.default:g})"
        options.add_argument(f"--{field.name}", type=field.type, default=argparse.SUPPRESS, help=text)
    return options


def run(arguments: list[str]) -> None:
    """Export the run that the command line names, and print what was written."""
    given = vars(parser().parse_args(arguments))
    find_devices()
    sampling = {field.name: given.pop(field.name) for field in SAMPLING if field.name in given}
    if given["format"] in FORMATS and given["format"] != "jax":
        for name in [*sampling, *({"platforms"} & given.keys())]:
            raise ArgumentError(f"--{name}", f"is for --format=jax, not {given['format']}: omit one of them")
    if "platforms" in given:
        given["platforms"] = tuple(given["platforms"].split(","))
    workdir, out = given.pop("workdir"), given.pop("out")
    try:
        files = export_run(workdir, out, sampling=SamplingOptions(**sampling), **given)
    except ArgumentError as error:
        name = _FLAGS.get(error.name, error.name)
        flag = ArgumentError(f"--{name}{error.argument.removeprefix(error.name)}", error.problem)
        is_flag = name in {"out", "format", "platforms", *(field.name for field in SAMPLING)}
        raise (flag if is_flag else error) from None
    print(f"wrote {out}: {', '.join(files)}")
