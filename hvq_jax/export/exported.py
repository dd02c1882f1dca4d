"""An exported run in use: only JAX, NumPy and the folder are needed, not the run."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.export.manifest import BATCH, Form, JaxVersions, Manifest, Program, read_manifest, read_program
from hvq_jax.files import full_path

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ExportedRun:
    """The programs of a folder that `export_run` wrote with format "jax", compiled once per batch size."""

    folder: Path
    manifest: Manifest
    programs: Mapping[str, Callable[..., dict[str, jax.Array]]] = dataclasses.field(repr=False)

    def encode(self, images: Any) -> Arrays:
        """Return the arrays that `decode` takes, of uint8 images `[N, H, W, C]`."""
        return self._call("encoder", images=images)

    def decode(self, indices: Any, gains: Any = None, residuals: Any = None) -> np.ndarray:
        """Return uint8 images `[N, H, W, C]` of codes, with the gains or residuals that the run's latent has."""
        given = {"indices": indices, "gains": gains, "residuals": residuals}
        return self._call("decoder", **{name: value for name, value in given.items() if value is not None})["images"]

    def sample(self, labels: Any, *, seed: int = 0) -> Arrays:
        """Return one image per label, with its codes; image n depends on `seed`, n and its label."""
        return self._call("sampler", labels=labels, seed=seed)

    def _call(self, name: str, **arguments: Any) -> Arrays:
        if name not in self.programs:
            raise UserError(f"{self.folder} has no {name}: it has {', '.join(self.programs)}")
        checked = check_arguments(self.manifest["programs"][name], arguments)
        return {key: np.asarray(value) for key, value in self.programs[name](**checked).items()}


def load_exported(folder: str | Path) -> ExportedRun:
    """Open a folder that `export_run` wrote with format "jax".

    Raises:
        UserError: it is no such folder, a file is missing or damaged, or this JAX or its platform cannot run it.
    """
    folder = full_path(folder)
    manifest = read_manifest(folder, "jax")
    if "jax" not in manifest:
        raise UserError(f"{folder / 'manifest.json'} cannot be used (it has no jax): export the run again")
    contents = {name: read_program(folder, program) for name, program in manifest["programs"].items()}
    _check_versions(folder, manifest["jax"])
    programs = {name: _program(folder, content, manifest["jax"]) for name, content in contents.items()}
    return ExportedRun(folder, manifest, programs)


def _check_versions(folder: Path, of_export: JaxVersions) -> None:
    """Raise UserError if this JAX, or the platform it uses, cannot run the programs."""
    low, high = (
        jax.export.minimum_supported_calling_convention_version,
        jax.export.maximum_supported_calling_convention_version,
    )
    version = of_export["calling_convention_version"]
    if not low <= version <= high:
        raise UserError(
            f"{folder} was exported with JAX {of_export['version']} (calling convention {version}), and this JAX, "
            f"{jax.__version__}, runs {low} to {high}: {_remedy(of_export)}"
        )
    platform = jax.export.default_export_platform()
    if platform not in of_export["platforms"]:
        raise UserError(
            f"{folder} was exported for {', '.join(of_export['platforms'])}, and this process uses {platform}: set "
            f"JAX_PLATFORMS={of_export['platforms'][0]}, or export it again with --platforms={platform}"
        )


def _remedy(of_export: JaxVersions) -> str:
    return f'pip install "jax=={of_export["version"]}", or export it again with JAX {jax.__version__}'


def _program(folder: Path, content: bytes, of_export: JaxVersions) -> Callable[..., dict[str, jax.Array]]:
    try:
        return jax.jit(jax.export.deserialize(bytearray(content)).call)
    except ImportError:
        raise UserError("this needs the package flatbuffers: pip install flatbuffers") from None
    except Exception as error:  # a parser in C++ raises errors of its own kinds
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{folder} was exported with JAX {of_export['version']}, and this JAX, {jax.__version__}, cannot read it "
            f"({line}): {_remedy(of_export)}"
        ) from None


def check_arguments(program: Program, arguments: Mapping[str, Any]) -> Arrays:
    """Return `arguments` as arrays of a program's dtypes; raise ArgumentError for one that it does not take.

    >>> forms = {"indices": {"shape": [BATCH, 2], "dtype": "int32", "meaning": "", "low": 0, "high": 7}}
    >>> program = {"file": "", "sha256": "", "arguments": forms, "results": {}}
    >>> check_arguments(program, {"indices": [[0, 8]]})
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: indices: must be from 0 to 7, not 8
    """
    forms = program["arguments"]
    for name in sorted({*forms, *arguments}):
        if name not in arguments:
            raise ArgumentError(name, "is missing: this run's latent has it")
        if name not in forms:
            raise ArgumentError(name, f"is not taken by this run's latent, which has {', '.join(forms)}")
    checked = {name: _checked(name, arguments[name], form) for name, form in forms.items()}
    sizes = {len(checked[name]) for name, form in forms.items() if BATCH in form["shape"]}
    if len(sizes) > 1:
        raise ArgumentError(next(iter(forms)), f"all arguments must be of the same number of images, not {sizes}")
    return checked


def _checked(name: str, value: Any, form: Form) -> np.ndarray:
    array, sizes = np.asarray(value), form["shape"]
    fits = array.ndim == len(sizes)
    fits = fits and all(size in (BATCH, found) for size, found in zip(sizes, array.shape, strict=True))
    if not fits or (BATCH in sizes and not array.size):
        expected = f"[{', '.join('N' if size == BATCH else str(size) for size in sizes)}]"
        raise ArgumentError(name, f"must have the shape {expected}, N at least 1, not {list(array.shape)}")
    kinds = {"u": "iu", "i": "iu", "f": "f"}[np.dtype(form["dtype"]).kind]
    if array.dtype.kind not in kinds or (form["dtype"] == "uint8" and array.dtype != np.uint8):
        raise ArgumentError(name, f"must be {form['dtype']}, not {array.dtype}")
    low, high = form["low"], form["high"]
    for extreme in (array.min(), array.max()):
        if (low is not None and extreme < low) or (high is not None and extreme > high):
            raise ArgumentError(name, f"must be from {low} to {high}, not {extreme}")
    return array.astype(form["dtype"])
