"""Latents that the user brings along, to train a prior on without an autoencoder: any grids of whole numbers."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from hvq_jax.bottleneck import LatentOptions
from hvq_jax.data.datasets import Split
from hvq_jax.data.shuffle import permutation
from hvq_jax.errors import UserError
from hvq_jax.training.latent_data import SPLITS, ContinuousOptions, LatentData, has_residual, read_arrays, tokens_of

_HELD_OUT = ("validation", "test")
_CARVING_SEED = 0  # not the run's: every run is tested on the same


@dataclasses.dataclass(frozen=True)
class OwnLatents:
    """The data set of a run that has a prior only."""

    data: LatentData
    class_names: tuple[str, ...]  # their numbers; none without labels
    description: str
    digest: str  # of all that was read

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(h, w)."""
        height, width, _ = self.data.train.image_shape
        return height, width

    @property
    def train(self) -> Split:
        """Tokens to train on."""
        return self.data.train

    def fingerprint(self) -> str:
        """As of a data set of images."""
        return self.digest


def own_latents(
    path: str, latent: LatentOptions, options: ContinuousOptions, *, validation_size: int, test_size: int
) -> OwnLatents:
    """Reads an .npz like the `latents.npz` of a run, but that residuals are of every position, not of some.

    Its arrays are, for each split, `train_indices` `[N, h, w]` int in 0 … K − 1, `train_labels` `[N]` int (without any:
    no classes) and, where the latent has continuous parts, `train_continuous` `[N, h, w, c]` float: signed lengths, or
    residuals of `frequency`. Splits `validation` and `test` that are missing are taken out of `train`, as many as the
    sizes say. `present` `[K]` bool says which codes have a continuous part; all have it where it is missing.

    Raises:
        UserError: the file, an array's shape or a value in it is not like that.
    """
    arrays = read_arrays(Path(path), advice="it has to be an .npz of arrays, written without pickle")
    if "train_indices" not in arrays:
        raise UserError(f"{path}: has no array train_indices; it has {', '.join(arrays) or 'none'}")
    has_continuous = latent.mode != "vq"
    kinds = ("indices", "labels", "continuous") if has_continuous else ("indices", "labels")
    arrays = _carved(path, arrays, kinds, {"validation": validation_size, "test": test_size})
    has_labels = "train_labels" in arrays
    for split in SPLITS:
        _check(path, arrays, split, latent, has_continuous, has_labels)
        indices = arrays[f"{split}_indices"] = arrays[f"{split}_indices"].astype(np.int32)
        arrays[f"{split}_labels"] = arrays.get(f"{split}_labels", np.zeros(len(indices))).astype(np.int32)
        if not has_continuous:
            arrays[f"{split}_continuous"] = np.zeros((*indices.shape, 1), np.float32)
    arrays["present"] = _present(path, arrays, latent)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    if has_residual(latent):  # stored where there is one only
        for split in SPLITS:
            chosen = arrays["present"][arrays[f"{split}_indices"]]
            arrays[f"{split}_continuous"] = arrays[f"{split}_continuous"][chosen]
    num_classes = 1 + max(int(arrays[f"{split}_labels"].max()) for split in SPLITS) if has_labels else 0
    count = len(arrays["train_indices"])
    return OwnLatents(
        data=tokens_of(latent, arrays, options),
        class_names=tuple(map(str, range(num_classes))),
        description=f"{count} latents to train on, from {Path(path).name}",
        digest=digest.hexdigest(),
    )


def _carved(
    path: str, arrays: dict[str, np.ndarray], kinds: tuple[str, ...], sizes: dict[str, int]
) -> dict[str, np.ndarray]:
    """With splits that are missing taken out of train; only the arrays that are looked at."""
    missing = {split: sizes[split] for split in _HELD_OUT if f"{split}_indices" not in arrays}
    of_train = {kind: np.atleast_1d(arrays[f"train_{kind}"]) for kind in kinds if f"train_{kind}" in arrays}
    count = len(of_train["indices"])
    if any(len(values) != count for values in of_train.values()):
        counts = ", ".join(f"train_{kind} {len(values)}" for kind, values in of_train.items())
        raise UserError(f"{path}: arrays of one split must be of equally many latents: {counts}")
    if sum(missing.values()) >= count:
        flags = " and ".join(f"--config.data.{split}_size={size}" for split, size in missing.items())
        raise UserError(f"{path}: {flags} leave nothing of {count} latents to train on")
    order, start = permutation(count, _CARVING_SEED), 0
    found = {name: values for name, values in arrays.items() if name.partition("_")[2] in kinds or name == "present"}
    for split, size in missing.items():
        rows = np.sort(order[start : start + size])
        found |= {f"{split}_{kind}": values[rows] for kind, values in of_train.items()}
        start += size
    rest = np.sort(order[start:])
    return found | {f"train_{kind}": values[rest] for kind, values in of_train.items()}


def _check(
    path: str,
    arrays: dict[str, np.ndarray],
    split: str,
    latent: LatentOptions,
    has_continuous: bool,
    has_labels: bool,
) -> None:
    indices, grid = arrays[f"{split}_indices"], arrays["train_indices"].shape[1:]
    if indices.ndim != 3 or indices.shape[1:] != grid or not len(indices) or indices.dtype.kind not in "iu":
        raise UserError(
            f"{path}: {split}_indices must be whole numbers [N, h, w], those of train alike; they are {indices.dtype} "
            f"of shape {indices.shape}"
        )
    if indices.min() < 0 or indices.max() >= latent.num_codes:
        raise UserError(
            f"{path}: {split}_indices are from {indices.min()} to {indices.max()}, and --config.latent.num_codes="
            f"{latent.num_codes} allows 0 to {latent.num_codes - 1}"
        )
    labels = arrays.get(f"{split}_labels")
    if has_labels != (labels is not None):
        raise UserError(f"{path}: {split}_labels and train_labels must both be there or both be missing")
    if labels is not None and (labels.shape != indices.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0):
        raise UserError(f"{path}: {split}_labels must be whole numbers [{len(indices)}], not below 0")
    if not has_continuous:
        return
    channels = latent.dim if has_residual(latent) else latent.projection_groups
    continuous = arrays.get(f"{split}_continuous")
    if continuous is None or continuous.shape != (*indices.shape, channels) or continuous.dtype.kind != "f":
        found = "missing" if continuous is None else f"{continuous.dtype} of shape {continuous.shape}"
        raise UserError(
            f"{path}: --config.latent.mode={latent.mode} needs {split}_continuous, floats of shape "
            f"{(*indices.shape, channels)}; it is {found}"
        )
    if not np.isfinite(continuous).all():
        raise UserError(f"{path}: {split}_continuous is not finite everywhere")


def _present(path: str, arrays: dict[str, np.ndarray], latent: LatentOptions) -> np.ndarray:
    if latent.mode == "vq":
        return np.zeros(latent.num_codes, bool)
    present = arrays.get("present", np.ones(latent.num_codes, bool))
    if present.shape != (latent.num_codes,) or present.dtype != bool:
        raise UserError(f"{path}: present must be bool [{latent.num_codes}], not {present.dtype} of {present.shape}")
    return present
