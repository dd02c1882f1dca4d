"""Programs in JAX's own format, `jax.export`: any process that has JAX and flatbuffers runs them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.export.manifest import BATCH, Forms, JaxVersions, Program, write_program
from hvq_jax.export.parts import Part
from hvq_jax.extras import install_command
from hvq_jax.registry import check_choice

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")


def check_platforms(platforms: Sequence[str]) -> None:
    """Raise ArgumentError unless `platforms` are names of platforms, each once and at least one."""
    for name in platforms:
        check_choice("platforms", name, PLATFORMS)
    if not platforms or len({*platforms}) != len(platforms):
        raise ArgumentError(f"platforms={','.join(platforms)}", "name each platform once, and at least one")


def write_jax_programs(
    folder: Path, parts: Sequence[Part], platforms: Sequence[str]
) -> tuple[dict[str, Program], JaxVersions]:
    """Write a file for each part; return what the manifest says about them."""
    versions: JaxVersions = {
        "version": jax.__version__,
        "calling_convention_version": jax.export.maximum_supported_calling_convention_version,
        "platforms": list(platforms),
    }
    programs = {}
    for part in parts:
        exported = _lowered(part, platforms)
        versions["calling_convention_version"] = exported.calling_convention_version
        content = bytes(_serialized(exported))
        programs[part.name] = write_program(folder, f"{part.name}.jax", content, part.arguments, part.results)
    return programs, versions


def _lowered(part: Part, platforms: Sequence[str]) -> jax.export.Exported:
    try:
        return jax.export.export(jax.jit(part.function), platforms=platforms)(**abstract(part.arguments))
    except NotImplementedError as error:  # an operation without a rule for one of the platforms
        line = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"the {part.name} cannot be exported for {','.join(platforms)} ({line}): name fewer --platforms"
        ) from None


def abstract(arguments: Forms) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the arguments without values, the size of the batch a symbol."""
    (batch,) = jax.export.symbolic_shape(BATCH)

    def shape(sizes: list[int | str]) -> tuple[Any, ...]:
        return tuple(batch if size == BATCH else size for size in sizes)

    return {name: jax.ShapeDtypeStruct(shape(form["shape"]), form["dtype"]) for name, form in arguments.items()}


def _serialized(exported: jax.export.Exported) -> bytearray:
    try:
        return exported.serialize()
    except ImportError:
        raise UserError(f"this needs the package flatbuffers: {install_command('export')}") from None
