"""User-provided latents to train a prior on without an autoencoder: any grids of integers."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from hvq_jax.data.datasets import Split
from hvq_jax.data.held_out import HELD_OUT, SPLITS, carve
from hvq_jax.data.options import DataOptions
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import full_path, read_arrays
from hvq_jax.latents import PROJECTION, Z_E, Latent, find_latent
from hvq_jax.quantizers import CodebookOptions, LatentOptions, make_quantizer
from hvq_jax.runs.latent_data import LatentData, at_all_positions, tokenize
from hvq_jax.runs.options import PriorStageOptions

_ORDER = ("validation", "test", "train")  # of splits that are taken out of train


@dataclasses.dataclass(frozen=True)
class OwnLatents:
    """The data set of a run without an autoencoder."""

    data: LatentData
    class_names: tuple[str, ...]  # their numbers; none without labels
    description: str
    digest: str  # of all that was read
    carved_sizes: dict[str, int]  # of the splits that were taken out of train

    @property
    def latent_shape(self) -> tuple[int, int]:
        """The sides (h, w) of the latents."""
        height, width, _ = self.data.train.item_shape
        return height, width

    @property
    def counts(self) -> str:
        """The number of latents of each split, as one line."""
        train, validation, test = (len(getattr(self.data, split)) for split in SPLITS)
        line = f"{train:,} latents to train on, {validation:,} for validation, {test:,} for testing"
        return line + (f"; {' and '.join(self.carved_sizes)} taken from train" if self.carved_sizes else "")

    @property
    def train(self) -> Split:
        """The tokens to train on."""
        return self.data.train

    def fingerprint(self) -> str:
        """Return a digest that identifies the data set."""
        return self.digest


@dataclasses.dataclass(frozen=True)
class _Expected:
    """The requirements on the arrays of a file."""

    path: str
    row: Latent
    mode: str
    num_codes: int
    channels: dict[str, int]  # of each continuous part that the latent has: "lengths" g, "residuals" D

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the arrays of a split, without the split's."""
        return ("indices", "labels", *self.channels)


def own_latents(
    path: str,
    latent_options: LatentOptions,
    codebook_options: CodebookOptions,
    prior_options: PriorStageOptions,
    data_options: DataOptions,
) -> OwnLatents:
    """Read an .npz like the `latents.npz` of a run (see `latent_data.py`).

    Labels may be missing; then there are no classes. Residuals may also be given at all positions, `[N, h, w, D]`.
    Splits `validation` and `test` that are missing are taken out of `train`, with the sizes in `data`. `frequent`
    `[K]` bool marks the frequent codes; if it is missing, no code is frequent.

    Raises:
        UserError: the file, an array's shape or a value in it does not match this description.
        ArgumentError: the options do not fit the file.
    """
    row = find_latent(latent_options.mode)
    channels = {"lengths": latent_options.projection_groups} if row.uses(PROJECTION) else {}
    channels |= {"residuals": latent_options.dim} if row.uses(Z_E) else {}
    num_codes = make_quantizer(latent_options, codebook_options).num_codes
    expected = _Expected(path, row, latent_options.mode, num_codes, channels)
    arrays = read_arrays(full_path(path), advice="it must be an .npz of arrays, written without pickle")
    if "train_indices" not in arrays:
        raise UserError(f"{path}: has no array train_indices; it has {', '.join(arrays) or 'none'}")
    if "present" in arrays:
        raise UserError(f"{path}: store ~present, the codes without a continuous part, as frequent")
    if "train_continuous" in arrays:
        raise UserError(f"{path}: rename train_continuous to train_lengths, or train_residuals for z_e - code")
    arrays["frequent"] = _frequent(expected, arrays)
    has_residual = np.asarray(row.codes_with(Z_E, arrays["frequent"]))
    missing = [split for split in HELD_OUT if f"{split}_indices" not in arrays]
    for split in SPLITS:
        if split not in missing:
            _check_indices(expected, arrays, split)
    arrays = _carve(expected, _spread(expected, arrays, has_residual), missing, data_options)
    has_labels = "train_labels" in arrays
    if prior_options.conditional and not has_labels:
        raise UserError(f"{path} has no train_labels, so no classes: choose prior.conditional=False")
    for split in SPLITS:
        _check_others(expected, arrays, split, has_labels)
        indices = arrays[f"{split}_indices"] = arrays[f"{split}_indices"].astype(np.int32)
        arrays[f"{split}_labels"] = arrays.get(f"{split}_labels", np.zeros(len(indices))).astype(np.int32)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    for split in SPLITS if "residuals" in channels else ():
        chosen = has_residual[arrays[f"{split}_indices"]]
        arrays[f"{split}_residuals"] = arrays[f"{split}_residuals"][chosen]
    num_classes = 1 + max(int(arrays[f"{split}_labels"].max()) for split in SPLITS) if has_labels else 0
    count = len(arrays["train_indices"])
    return OwnLatents(
        data=tokenize(row, arrays, prior_options),
        class_names=tuple(map(str, range(num_classes))),
        description=f"{count} latents to train on, from {Path(path).name}",
        digest=digest.hexdigest(),
        carved_sizes={split: len(arrays[f"{split}_indices"]) for split in missing},
    )


def _frequent(expected: _Expected, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return which codes are frequent, `[K]` bool."""
    found = arrays.get("frequent", np.zeros(expected.num_codes, bool))
    if found.shape != (expected.num_codes,) or found.dtype != bool:
        raise UserError(
            f"{expected.path}: frequent must be bool [{expected.num_codes}], not {found.dtype} of {found.shape}"
        )
    return found


def _spread(expected: _Expected, arrays: dict[str, np.ndarray], has_residual: np.ndarray) -> dict[str, np.ndarray]:
    """Return `arrays` with residuals `[n, D]`, as a run stores them, at all positions `[N, h, w, D]`."""
    spread = dict(arrays)
    for split in SPLITS if "residuals" in expected.channels else ():
        indices, residuals = arrays.get(f"{split}_indices"), arrays.get(f"{split}_residuals")
        if indices is None or residuals is None or residuals.ndim != 2:
            continue
        chosen = has_residual[indices]
        if np.count_nonzero(chosen) != len(residuals):
            raise UserError(
                f"{expected.path}: {split}_residuals has {len(residuals)} rows, but {np.count_nonzero(chosen)} "
                "positions of that split have a residual"
            )
        spread[f"{split}_residuals"] = at_all_positions(residuals, chosen)
    return spread


def _carve(
    expected: _Expected, arrays: dict[str, np.ndarray], missing: list[str], data_options: DataOptions
) -> dict[str, np.ndarray]:
    """Return the arrays in use, with the `missing` splits taken out of train."""
    path, kinds = expected.path, expected.kinds
    of_train = {kind: np.atleast_1d(arrays[f"train_{kind}"]) for kind in kinds if f"train_{kind}" in arrays}
    count = len(of_train["indices"])
    if any(len(values) != count for values in of_train.values()):
        counts = ", ".join(f"train_{kind} {len(values)}" for kind, values in of_train.items())
        raise UserError(f"{path}: arrays of one split must have equal numbers of latents: {counts}")
    try:
        rows = carve(count, missing, data_options, item="latent", where=f" in {path}", order=_ORDER)
    except ArgumentError as error:
        raise error.within("data.") from None
    found = {name: values for name, values in arrays.items() if name.partition("_")[2] in kinds or name == "frequent"}
    return found | {f"{split}_{kind}": values[rows[split]] for split in rows for kind, values in of_train.items()}


def _check_indices(expected: _Expected, arrays: dict[str, np.ndarray], split: str) -> None:
    path, num_codes = expected.path, expected.num_codes
    indices, grid = arrays[f"{split}_indices"], arrays["train_indices"].shape[1:]
    if indices.ndim != 3 or indices.shape[1:] != grid or not len(indices) or indices.dtype.kind not in "iu":
        raise UserError(
            f"{path}: {split}_indices must be integers [N, h, w], with one grid for all splits; they are "
            f"{indices.dtype} of shape {indices.shape}"
        )
    if indices.min() < 0 or indices.max() >= num_codes:
        raise UserError(
            f"{path}: {split}_indices are from {indices.min()} to {indices.max()}, and latent.num_codes="
            f"{num_codes} allows 0 to {num_codes - 1}"
        )


def _check_others(expected: _Expected, arrays: dict[str, np.ndarray], split: str, has_labels: bool) -> None:
    """Check labels and continuous parts, whose shapes follow from the indices."""
    path, indices, labels = expected.path, arrays[f"{split}_indices"], arrays.get(f"{split}_labels")
    if has_labels != (labels is not None):
        raise UserError(f"{path}: {split}_labels and train_labels must both be there or both be missing")
    if labels is not None and (labels.shape != indices.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0):
        raise UserError(f"{path}: {split}_labels must be integers [{len(indices)}], at least 0")
    for kind, channels in expected.channels.items():
        part = arrays.get(f"{split}_{kind}")
        if part is None or part.shape != (*indices.shape, channels) or part.dtype.kind != "f":
            found = "missing" if part is None else f"{part.dtype} of shape {part.shape}"
            raise UserError(
                f"{path}: latent.mode={expected.mode} needs {split}_{kind}, floats of shape "
                f"{(*indices.shape, channels)}; it is {found}"
            )
        if not np.isfinite(part).all():
            raise UserError(f"{path}: {split}_{kind} is not finite everywhere")
