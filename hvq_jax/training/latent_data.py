"""The training data of the second stage: every image as its grid of codes, encoded once and kept in the workdir."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.data.datasets import ImageDataset, Split
from hvq_jax.data.pipeline import Batch, eval_batches
from hvq_jax.errors import UserError
from hvq_jax.images import to_float
from hvq_jax.training.cluster import is_first, wait_for_all
from hvq_jax.training.parallel import Parallel
from hvq_jax.training.preemption import Preemption
from hvq_jax.training.workdir import whole_file

FILE = "latents.npz"
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class LatentData:
    """Index grids in place of images: `Split.images` is `[N, h, w]` int32."""

    train: Split
    validation: Split
    test: Split
    mean_gains: np.ndarray  # [K], or [K, g], float32, each code's mean gain on train where it has one, else 1


def mean_gain_per_code(indices: np.ndarray, gains: np.ndarray, continuous: np.ndarray, num_codes: int) -> np.ndarray:
    """`[K]` float32: the mean of `gains` over the `continuous` positions of each code, 1 for a code without any.

    All arrays `[N, h, w]`; from gains `[N, h, w, g]` it is `[K, g]`. The control for a prior over gains: it knows the
    code, not the context.
    """
    chosen = indices[continuous]
    counts = np.bincount(chosen, minlength=num_codes).reshape(-1, *[1] * (gains.ndim - 3))
    sums = np.zeros((num_codes, *gains.shape[3:]))
    np.add.at(sums, chosen, gains[continuous])
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1.0).astype(np.float32)


def latent_data(
    model: Autoencoder,
    variables: Variables,
    dataset: ImageDataset,
    *,
    workdir: Path,
    checkpoint_step: int,
    batch_size: int,
    parallel: Parallel,
    preemption: Preemption,
) -> LatentData:
    """The latents of `dataset` by the autoencoder of `checkpoint_step`: read from the workdir if it has them."""
    path = workdir / FILE
    if not path.exists():
        arrays = _encode(model, variables, dataset, batch_size=batch_size, parallel=parallel, preemption=preemption)
        if is_first():
            with whole_file(path) as temporary, temporary.open("wb") as file:
                np.savez(file, checkpoint_step=np.array(checkpoint_step), **arrays)  # type: ignore[arg-type]
        wait_for_all("latents are written")
    check_latents(workdir, checkpoint_step)
    stored = read_latents(path)
    splits = {name: Split(stored[f"{name}_indices"], stored[f"{name}_labels"]) for name in _SPLITS}
    return LatentData(**splits, mean_gains=stored["mean_gains"])


def check_latents(workdir: Path, checkpoint_step: int) -> None:
    """Raises UserError if the workdir's latents, and so its prior, belong to another autoencoder than this step's."""
    path = workdir / FILE
    if not path.exists():
        return
    encoded_by = int(read_latents(path)["checkpoint_step"])
    if encoded_by != checkpoint_step:
        raise UserError(
            f"{path} and the prior belong to the autoencoder of step {encoded_by}, but the best is now that of step "
            f"{checkpoint_step}: delete {path} and {workdir / 'checkpoints' / 'prior'} and train the prior again"
        )


def _encode(
    model: Autoencoder,
    variables: Variables,
    dataset: ImageDataset,
    *,
    batch_size: int,
    parallel: Parallel,
    preemption: Preemption,
) -> dict[str, np.ndarray]:
    def encode_batch(variables: Variables, batch: Batch) -> Any:
        latent = autoencoder.encode_to_latent(model, variables, to_float(batch.images))
        return latent.indices, batch.labels, latent.gain, ~latent.discrete[..., 0]

    encode = parallel.compile(encode_batch, sharded_result=True)
    variables = parallel.replicate(variables)
    arrays: dict[str, np.ndarray] = {}
    for name in _SPLITS:
        split: Split = getattr(dataset, name)
        batches = parallel.prefetch(eval_batches(split, batch_size=batch_size, **parallel.share))
        parts = [parallel.gather(encode(variables, batch)) for batch in preemption.watch(batches)]
        indices, labels, gains, continuous = [np.concatenate(part)[: len(split)] for part in zip(*parts, strict=True)]
        arrays |= {f"{name}_indices": indices, f"{name}_labels": labels}
        if name == "train":
            if model.latent.mode == "frequency":  # its continuous part is a vector, not a gain
                continuous = np.zeros_like(continuous)
            arrays["mean_gains"] = mean_gain_per_code(indices, gains, continuous, model.latent.num_codes)
    return arrays


def read_latents(path: Path) -> dict[str, np.ndarray]:
    """The stored arrays, read without pickle; UserError if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it and run train.py again") from None
