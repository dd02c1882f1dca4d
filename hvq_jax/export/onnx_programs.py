"""Encoder and decoder as ONNX models, converted by jax2onnx and compared with JAX in onnxruntime.

Samplers are not converted: they would need JAX's random numbers. Convolutions are computed in float32, whatever the
run's compute dtype, since ONNX runtimes on CPU have none in bfloat16.
"""

import contextlib
import dataclasses
import importlib.util
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.errors import UserError
from hvq_jax.export.jax_programs import abstract
from hvq_jax.export.manifest import Program, write_program
from hvq_jax.export.parts import Part, autoencoder_parts
from hvq_jax.export.primitives import with_plain_operations
from hvq_jax.extras import install_command

_PACKAGES = ("jax2onnx", "onnx", "onnxruntime")
_NUM_COMPARED = 3  # images
_MOST_OTHER_CODES = 0.01  # of positions where two codes are equally near, up to rounding


def check_packages() -> None:
    """Raise UserError if a package that the conversion needs is not installed."""
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"format=onnx needs the package {name}: {install_command('onnx')}")


def write_onnx_programs(folder: Path, model: Autoencoder, variables: Variables) -> tuple[dict[str, Program], str]:
    """Write encoder.onnx and decoder.onnx; return what the manifest says about them, and how they compare with JAX.

    Raises UserError if jax2onnx cannot convert them, or if its models give other results than JAX.
    """
    network = dataclasses.replace(model.network, compute_dtype="float32")
    encoder, decoder = autoencoder_parts(dataclasses.replace(model, network=network), variables)
    programs, sessions = {}, {}
    for part in (encoder, decoder):
        content = _converted(part)
        sessions[part.name] = _Session(content, part)
        programs[part.name] = write_program(folder, f"{part.name}.onnx", content, part.arguments, part.results)
    return programs, _compared(encoder, decoder, sessions)


def _converted(part: Part) -> bytes:
    """Return the model of a part as the content of a file."""
    arguments = abstract(part.arguments)
    program = jax.make_jaxpr(lambda *values: _listed(part, values))(*arguments.values())
    function = with_plain_operations(program)
    try:
        with _quiet():
            import jax2onnx

            model = jax2onnx.to_onnx(
                lambda *values: tuple(function(*values)),
                inputs=list(arguments.values()),
                model_name=part.name,
                input_names=list(part.arguments),
                output_names=list(part.results),
            )
    except Exception as error:  # of any kind, for an operation that it does not know
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"jax2onnx cannot convert the {part.name} of this run ({line}): choose format=jax") from None
    return bytes(model.SerializeToString())


def _listed(part: Part, values: tuple[Any, ...]) -> list[Any]:
    """Call a part with its arguments, and return its results, in the order of their forms."""
    found = part.function(**dict(zip(part.arguments, values, strict=True)))
    return [found[name] for name in part.results]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what jax2onnx prints and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class _Session:
    """A model in onnxruntime, called like the function of its part."""

    def __init__(self, content: bytes, part: Part) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._results = list(part.results)

    def __call__(self, **arguments: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._results, self._session.run(self._results, arguments), strict=True))


def _compared(encoder: Part, decoder: Part, sessions: dict[str, _Session]) -> str:
    """Say how the models compare with JAX on random images; raise UserError if they are not the same programs."""
    sizes: list[Any] = encoder.arguments["images"]["shape"][1:]
    images = np.random.default_rng(0).integers(0, 256, (_NUM_COMPARED, *sizes), np.uint8)
    expected = {name: np.asarray(value) for name, value in jax.jit(encoder.function)(images=images).items()}
    found = sessions["encoder"](images=images)
    different = np.count_nonzero(found["indices"] != expected["indices"])
    decoded = np.asarray(jax.jit(decoder.function)(**expected)["images"], int)
    levels = np.abs(sessions["decoder"](**expected)["images"] - decoded).max()
    if different > max(1, _MOST_OTHER_CODES * found["indices"].size) or levels > 1:
        raise UserError(
            f"jax2onnx converts this run wrongly: {different} of {found['indices'].size} codes of the encoder differ "
            f"from JAX's, and pixels of the decoder by up to {levels} grey levels: choose format=jax"
        )
    return (
        f"On {_NUM_COMPARED} random images, onnxruntime gave {different} of {found['indices'].size} codes other than "
        f"JAX's, and pixels of the same codes within {levels} grey levels."
    )
