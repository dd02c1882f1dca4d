"""Codes that a user gives a trained run to decode, as arrays or in an .npz, checked."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hvq_jax import autoencoder
from hvq_jax.codes import decoder_input
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import read_arrays, read_names
from hvq_jax.latents import PROJECTION, Z_E
from hvq_jax.runs.array_arguments import check_floats, check_integers, check_same_length
from hvq_jax.runs.stored import StoredRun

AUTOENCODER = "autoencoder"  # the array of an .npz that says which autoencoder its latents are of
_OF_IMAGES = ("names", "labels", "class_names")  # what it may say of each image
_CLOSE = 1e-4  # of the largest value: how far latents may be from those of their codes


def check_codes(
    run: StoredRun, indices: ArrayLike, gains: ArrayLike | None, residuals: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return indices, gains and residuals of `run` as in `Encoded`; gains are 1 where none are given.

    Raises:
        ArgumentError: they are not of this run's shapes, an index is none of its codes, or numbers are not finite.
    """
    shapes = run.encoded_shapes
    codes = check_integers(indices, shapes["indices"], run.num_codes, "indices")
    scales = np.ones((len(codes), *shapes["gains"]), np.float32)
    if gains is not None:
        scales = check_floats(gains, shapes["gains"], "gains")
    if residuals is None:
        check_same_length(indices=codes, gains=scales)
        return codes, scales, None
    if "residuals" not in shapes:
        raise ArgumentError("residuals", f"the decoder sees none in the latent {run.options.latent.mode}: omit them")
    rest = check_floats(residuals, shapes["residuals"], "residuals")
    check_same_length(indices=codes, gains=scales, residuals=rest)
    return codes, scales, rest


@dataclasses.dataclass(frozen=True, eq=False)
class StoredCodes:
    """The content of an .npz to decode; what is missing in it is None."""

    codes: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None  # of `check_codes`
    latents: np.ndarray | None  # [N, h, w, D] float32, what the decoder sees
    missing: tuple[str, ...]  # "gains" or "residuals", if codes of this run have them and these have not
    others: dict[str, np.ndarray]  # names [N], labels [N], class_names

    def __len__(self) -> int:
        found = self.latents if self.codes is None else self.codes[0]
        assert found is not None
        return len(found)


def read_codes(path: Path, run: StoredRun) -> StoredCodes:
    """Return the latents in an .npz of `sample.py`, or of any program that writes `indices`.

    Besides `indices` it may hold `gains` and `residuals`, as in `check_codes`, and `latents`, what the decoder sees,
    which alone are enough too. Other arrays are ignored.

    Raises:
        UserError: the file is damaged, or its latents are not of this run.
    """
    advice = "it must have indices, as the .npz files of sample.py do"
    found = read_names(path, advice=advice)
    if not {"indices", "latents"} & set(found):
        raise UserError(f"{path} has neither indices nor latents; it has {', '.join(found) or 'no arrays'}")
    if "lengths" in found and "gains" not in found:
        raise UserError(f"{path} has lengths, of a run without an autoencoder: store gains, each its length / |code|")
    wanted = ("indices", "gains", "residuals", "latents", AUTOENCODER, *_OF_IMAGES)
    arrays = read_arrays(path, names=wanted, advice=advice)
    if AUTOENCODER in arrays and str(arrays[AUTOENCODER]) != run.autoencoder_digest:
        raise UserError(
            f"{path} is of another autoencoder ({AUTOENCODER}={arrays[AUTOENCODER]}) than that of {run.workdir} "
            f"({run.autoencoder_digest}), for which its codes mean something else"
        )
    try:
        return _checked(arrays, run)
    except ArgumentError as error:
        raise UserError(f"{path} is not of the run {run.workdir}: {error}") from None


def _checked(arrays: dict[str, np.ndarray], run: StoredRun) -> StoredCodes:
    codes = latents = None
    if "indices" in arrays:
        codes = check_codes(run, arrays["indices"], arrays.get("gains"), arrays.get("residuals"))
    if "latents" in arrays:
        latents = check_floats(arrays["latents"], run.encoded_shapes["latents"], "latents")
    if codes is not None and latents is not None:
        check_same_length(indices=codes[0], latents=latents)
        _check_agreement(*codes, latents, run)
    missing = () if latents is not None else tuple(set(_parts(run)) - set(arrays))
    stored = StoredCodes(codes, latents, missing, {name: arrays[name] for name in _OF_IMAGES if name in arrays})
    for name in ("names", "labels"):
        if name in arrays and arrays[name].shape != (len(stored),):
            raise ArgumentError(name, f"must be [{len(stored)}]; the shape is {arrays[name].shape}")
    return stored


def _parts(run: StoredRun) -> list[str]:
    """Return the arrays besides indices that latents of this run need."""
    row = run.model.row
    return ["gains"] * row.uses(PROJECTION) + ["residuals"] * row.uses(Z_E)


def _check_agreement(
    indices: np.ndarray, gains: np.ndarray, residuals: np.ndarray | None, latents: np.ndarray, run: StoredRun
) -> None:
    """Raise ArgumentError if latents are not those of their codes, as where one of them was changed.

    Without residuals nothing is known about positions that have one.
    """
    vectors = autoencoder.vectors(run.model, run.variables, jnp.asarray(indices))
    expected = decoder_input(vectors, jnp.asarray(indices), gains, residuals, run.model.index_shape)
    known = np.ones((*latents.shape[:-1], 1), bool)
    if residuals is None and run.model.row.uses(Z_E):
        frequent = autoencoder.frequent_codes(run.model, run.variables)
        known = ~np.asarray(run.model.row.codes_with(Z_E, frequent))[indices][..., None]
    error = np.max(np.abs(latents - expected), where=known, initial=0.0)
    if error > _CLOSE * max(1.0, np.abs(latents).max()):
        raise ArgumentError(
            "latents",
            f"differ by up to {error:.2g} from those of its indices and gains: leave out the latents to decode the "
            "indices, or the indices to decode the latents",
        )
