"""The manifest of an exported folder, `manifest.json`: what its programs are, what they take and what they return."""

import hashlib
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

from hvq_jax.errors import UserError
from hvq_jax.files import open_regular, read_json
from hvq_jax.schema import Count, Range

MANIFEST = "manifest.json"
FORMAT = 1  # of the manifest
BATCH = "batch"  # the size of an axis that may have any, the same in all arguments of a call

_AGAIN = "export the run again"


class Form(TypedDict):
    """The form of an argument or a result."""

    shape: list[int | str]  # `BATCH` where the size may be any
    dtype: str
    meaning: str
    low: int | None  # the least and the greatest value; None: not limited
    high: int | None


def form(
    shape: tuple[int | str, ...], dtype: str, meaning: str, low: int | None = None, high: int | None = None
) -> Form:
    """Return the form of an array.

    >>> form((BATCH, 7, 7), "int32", "codes", 0, 511)["shape"]
    ['batch', 7, 7]
    """
    return {"shape": list(shape), "dtype": dtype, "meaning": meaning, "low": low, "high": high}


Forms = dict[str, Form]


class Program(TypedDict):
    """A program: its file, and its arguments and results by name."""

    file: str
    sha256: str
    arguments: Forms
    results: Forms


class JaxVersions(TypedDict):
    """What decides where programs in JAX's format run."""

    version: str
    calling_convention_version: Annotated[int, Range(0, 2**31)]
    platforms: list[str]


class Manifest(TypedDict):
    """The content of the file."""

    format: Annotated[int, Range(1, 2**31)]
    kind: str  # "jax" or "onnx"
    hvq_jax: str  # the version that exported it
    run: str
    latent: str
    class_names: list[str]
    steps: dict[str, Count]
    parameters_sha256: str
    programs: dict[str, Program]
    jax: NotRequired[JaxVersions]
    sampling: NotRequired[dict[str, float]]


def read_manifest(folder: Path, kind: str) -> Manifest:
    """Return the manifest of a folder of `kind`; raise UserError if it is missing, damaged or of another kind."""
    path = folder / MANIFEST
    manifest = read_json(path, Manifest, advice=_AGAIN)
    if manifest is None:
        raise UserError(f"{folder} is no exported run: {path} does not exist")
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{path} is in format {manifest['format']}, and this version of hvq_jax reads {FORMAT}: use hvq_jax "
            f"{manifest['hvq_jax']}, or {_AGAIN}"
        )
    if manifest["kind"] != kind:
        raise UserError(f"{folder} has programs for {manifest['kind']}, not {kind}: see {folder / 'README.md'}")
    return manifest


def read_program(folder: Path, program: Program) -> bytes:
    """Return the content of a program's file; raise UserError unless it is there as it was written."""
    path = folder / program["file"]
    try:
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, though {folder / MANIFEST} names it: {_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if hashlib.sha256(content).hexdigest() != program["sha256"]:
        raise UserError(f"{path} is damaged (its SHA-256 is not that in {folder / MANIFEST}): {_AGAIN}")
    return content


def write_program(folder: Path, file: str, content: bytes, arguments: Forms, results: Forms) -> Program:
    """Write a program's file into `folder`; return what the manifest says about it."""
    (folder / file).write_bytes(content)
    return {
        "file": file,
        "sha256": hashlib.sha256(content).hexdigest(),
        "arguments": arguments,
        "results": results,
    }
