"""User-provided latents to train a prior on without an autoencoder: any grids of integers."""

import dataclasses
import hashlib
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np

from hvq_jax.data.datasets import Split
from hvq_jax.data.held_out import HELD_OUT, SPLITS, carve
from hvq_jax.data.options import DataOptions
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import full_path, read_arrays, read_names
from hvq_jax.latents import Z_E, Latent, find_latent
from hvq_jax.quantizers import CodebookOptions, LatentOptions, Quantizer, make_quantizer
from hvq_jax.runs.latent_data import LatentData, at_all_positions, tokenize
from hvq_jax.runs.latent_files import check_residual_rows, latent_schema, latent_sizes
from hvq_jax.runs.options import PriorStageOptions
from hvq_jax.schema import Array

_ORDER = ("validation", "test", "train")  # of splits that are taken out of train
_MOST_CLASSES = 2**16
_ADVICE = "it must have the arrays that hvq_jax/runs/own_latents.py describes"


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


def own_latents(
    path: str,
    latent_options: LatentOptions,
    codebook_options: CodebookOptions,
    prior_options: PriorStageOptions,
    data_options: DataOptions,
) -> OwnLatents:
    """Read an .npz like the `latents.npz` of a run (see `latent_files.py`).

    Several codes per position, `[N, h, w, L]`, are those of a `codebook_options.family` that has so many.
    Labels may be missing; then there are no classes. Residuals may also be given at all positions, `[N, h, w, D]`.
    Splits `validation` and `test` that are missing are taken out of `train`, with the sizes in `data`. `frequent`
    `[K]` bool marks the frequent codes; if it is missing, no code is frequent.

    Raises:
        UserError: the file, an array's shape or a value in it does not match this description.
        ArgumentError: the options do not fit the file.
    """
    row = find_latent(latent_options.mode)
    given = _read(full_path(path), row, latent_options, make_quantizer(latent_options, codebook_options))
    has_labels = "train_labels" in given
    if prior_options.conditional and not has_labels:
        raise UserError(f"{path} has no train_labels, so no classes: choose prior.conditional=False")
    has_residual = np.asarray(row.codes_with(Z_E, given["frequent"]))
    missing = [split for split in HELD_OUT if f"{split}_indices" not in given]
    arrays = _carve(path, _spread(given, has_residual), missing, data_options)
    for split in SPLITS:
        indices = arrays[f"{split}_indices"] = arrays[f"{split}_indices"].astype(np.int32)
        arrays[f"{split}_labels"] = arrays.get(f"{split}_labels", np.zeros(len(indices))).astype(np.int32)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    for split in SPLITS if "train_residuals" in arrays else ():
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


def _read(path: Path, row: Latent, options: LatentOptions, quantizer: Quantizer) -> dict[str, np.ndarray]:
    """Return the arrays that the latent `row` has, with `frequent`; raise UserError unless they are as described."""
    names = read_names(path, advice=_ADVICE)
    if "train_indices" not in names:
        raise UserError(f"{path}: has no array train_indices; it has {', '.join(names) or 'none'}")
    if "present" in names:
        raise UserError(f"{path}: store ~present, the codes without a continuous part, as frequent")
    if "train_continuous" in names:
        raise UserError(f"{path}: rename train_continuous to train_lengths, or train_residuals for z_e - code")
    num_codes = quantizer.num_codes
    return read_arrays(
        path,
        _schema(latent_schema(row, num_codes, _MOST_CLASSES, quantizer.index_shape), names),
        sizes=latent_sizes(options, num_codes),
        check=partial(_complete, row=row, num_codes=num_codes),
        advice=f"{_ADVICE}, here for latent.mode={options.mode}, latent.num_codes K={num_codes}, latent.dim "
        f"D={options.dim}, latent.projection_groups g={options.projection_groups}",
    )


def _schema(of_run: dict[str, Array], names: Collection[str]) -> dict[str, Array]:
    """Return the form of each array of a file that has arrays of these `names`, from the forms that a run's have."""
    schema = {}
    for name, form in of_run.items():
        split, _, kind = name.partition("_")
        optional = kind in ("", "labels") or (split in HELD_OUT and f"{split}_indices" not in names)
        at_all = (f"N_{split}", "h", "w", "D") if kind == "residuals" else None
        schema[name] = dataclasses.replace(form, required=not optional, other_shape=at_all)
    return schema


def _complete(arrays: dict[str, np.ndarray], row: Latent, num_codes: int) -> None:
    """Add `frequent` if it is missing; raise ValueError if arrays do not go together."""
    arrays.setdefault("frequent", np.zeros(num_codes, bool))
    for name in arrays:
        split, _, kind = name.partition("_")
        if kind and f"{split}_indices" not in arrays:
            raise ValueError(f"it has {name}, but no {split}_indices")
        if kind == "indices" and (f"{split}_labels" in arrays) != ("train_labels" in arrays):
            raise ValueError(f"{split}_labels and train_labels must both be there or both be missing")
    check_residual_rows(arrays, row)


def _spread(arrays: dict[str, np.ndarray], has_residual: np.ndarray) -> dict[str, np.ndarray]:
    """Return `arrays` with residuals `[n, D]`, as a run stores them, at all positions `[N, h, w, D]`."""
    spread = dict(arrays)
    for split in SPLITS:
        residuals = arrays.get(f"{split}_residuals")
        if residuals is not None and residuals.ndim == 2:
            spread[f"{split}_residuals"] = at_all_positions(residuals, has_residual[arrays[f"{split}_indices"]])
    return spread


def _carve(
    path: str, arrays: dict[str, np.ndarray], missing: list[str], data_options: DataOptions
) -> dict[str, np.ndarray]:
    """Return `arrays` with the `missing` splits taken out of train."""
    of_train = {name.partition("_")[2]: values for name, values in arrays.items() if name.startswith("train_")}
    count = len(of_train["indices"])
    try:
        rows = carve(count, missing, data_options, item="latent", where=f" in {path}", order=_ORDER)
    except ArgumentError as error:
        raise error.within("data.") from None
    return arrays | {f"{split}_{kind}": values[rows[split]] for split in rows for kind, values in of_train.items()}
