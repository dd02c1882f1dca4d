"""The training data of the second stage: every image as its latent, encoded once and kept in the workdir, and the
tokens that a prior makes of it.
"""

import contextlib
import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.bottleneck import LatentOptions, frequent
from hvq_jax.data.datasets import ImageDataset, Split
from hvq_jax.data.pipeline import Batch, eval_batches
from hvq_jax.errors import UserError
from hvq_jax.images import to_float
from hvq_jax.latents import in_groups, signed_length
from hvq_jax.priors.bins import fit_bins
from hvq_jax.priors.tokens import Tables, to_tokens
from hvq_jax.training.cluster import is_first, wait_for_all
from hvq_jax.training.parallel import Parallel
from hvq_jax.training.preemption import Preemption
from hvq_jax.training.workdir import whole_file

FILE = "latents.npz"
TABLES = "tables.npz"
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class ContinuousOptions:
    """How the continuous part is made whole numbers; `config.prior` says."""

    num_bins: int = 16  # G
    bins_per_code: bool = True  # a table for each code and group, or one for all
    step: float = 0.1  # of residuals


@dataclasses.dataclass(frozen=True)
class LatentData:
    """Tokens in place of images: `Split.images` is `[N, h, w, 1 + c]`, int16 where that is enough, else int32."""

    train: Split
    validation: Split
    test: Split
    tables: Tables


def has_residual(latent: LatentOptions) -> bool:
    """Whether the continuous part is a vector, not a length."""
    return latent.mode == "frequency"


def encode_whole(model: Autoencoder, variables: Variables, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What a prior is to transmit of uint8 images `[B, H, W, C]`: codes `[B, h, w]`, continuous parts `[B, h, w, c]`.

    These are signed lengths, c = g, or residuals, c = D; of every position, also where the code has none.
    """
    z_e = autoencoder.encode(model, variables, to_float(images))
    latent, groups = autoencoder.quantize(model, variables, z_e), model.latent.projection_groups
    if has_residual(model.latent):
        return latent.indices, z_e - latent.z_q
    lengths = signed_length(in_groups(z_e, groups), in_groups(latent.z_q, groups))
    return latent.indices, lengths if groups > 1 else lengths[..., None]


def latent_data(
    model: Autoencoder,
    variables: Variables,
    dataset: ImageDataset,
    *,
    workdir: Path,
    checkpoint_step: int,
    batch_size: int,
    options: ContinuousOptions,
    parallel: Parallel,
    preemption: Preemption,
) -> LatentData:
    """The latents of `dataset` by the autoencoder of `checkpoint_step`: read from the workdir if it has them."""
    path = workdir / FILE
    if not path.exists():
        arrays = _encode(model, variables, dataset, batch_size=batch_size, parallel=parallel, preemption=preemption)
        if is_first():
            _write(path, {"checkpoint_step": np.array(checkpoint_step), **arrays})
        wait_for_all("latents are written")
    check_latents(workdir, checkpoint_step)
    return tokens_of(model.latent, read_arrays(path), options)


def tokens_of(latent: LatentOptions, stored: dict[str, np.ndarray], options: ContinuousOptions) -> LatentData:
    """What a prior is trained on, of the arrays of a `latents.npz`."""
    tables = tables_of(latent, stored, options)
    splits = {name: Split(_tokens(stored, name, tables), stored[f"{name}_labels"]) for name in SPLITS}
    return LatentData(**splits, tables=tables)


def write_tables(workdir: Path, tables: Tables, checkpoint_step: int) -> None:
    """Keeps them with the prior, for `read_tables`; the first process does. The step is the autoencoder's, or 0."""
    if is_first():
        arrays = {name: value for name, value in vars(tables).items() if value is not None}
        _write(workdir / TABLES, {"checkpoint_step": np.array(checkpoint_step), **arrays})


def _write(path: Path, arrays: dict[str, Any]) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_tables(workdir: Path) -> Tables:
    """What the workdir's prior was trained with; UserError if it is missing or damaged."""
    arrays = read_arrays(workdir / TABLES)
    centroids = arrays.get("centroids")
    return Tables(
        jnp.asarray(arrays["present"]), None if centroids is None else jnp.asarray(centroids), float(arrays["step"])
    )


def tables_of(latent: LatentOptions, stored: dict[str, np.ndarray], options: ContinuousOptions) -> Tables:
    """The same every time they are asked for: bins are fitted to the training latents without chance."""
    present = jnp.asarray(stored["present"])
    if latent.mode == "vq":
        return Tables(present, None)
    if has_residual(latent):
        return Tables(present, None, step=options.step)
    chosen = stored["present"][stored["train_indices"]]
    centroids = fit_bins(
        stored["train_continuous"][chosen],
        stored["train_indices"][chosen],
        num_codes=latent.num_codes,
        num_bins=options.num_bins,
        per_code=options.bins_per_code,
    )
    return Tables(present, jnp.asarray(centroids))


def _tokens(stored: dict[str, np.ndarray], split: str, tables: Tables) -> np.ndarray:
    """`[N, h, w, 1 + c]` of a split."""
    indices, chosen = stored[f"{split}_indices"], stored[f"{split}_continuous"]
    if tables.step:  # residuals are stored where there is one only
        continuous = np.zeros((*indices.shape, chosen.shape[-1]), np.int16)
        continuous[stored["present"][indices]] = np.clip(np.round(chosen / tables.step), -(2**15), 2**15 - 1)
        tokens = np.concatenate([indices[..., None], continuous], axis=-1)
    else:
        tokens = np.asarray(jax.jit(to_tokens)(indices, chosen, tables))
    return tokens.astype(np.int16 if len(tables.present) <= 2**15 else np.int32)


def check_latents(workdir: Path, checkpoint_step: int) -> None:
    """Raises UserError if the workdir's latents or its prior belong to another autoencoder than this step's."""
    for path in (workdir / FILE, workdir / TABLES):
        if not path.exists():
            continue
        made_by = int(read_arrays(path, "checkpoint_step")["checkpoint_step"])
        if made_by != checkpoint_step:
            raise UserError(
                f"{path} and the prior belong to the autoencoder of step {made_by}, but the best is now that of step "
                f"{checkpoint_step}: delete {workdir / FILE}, {workdir / TABLES} and "
                f"{workdir / 'checkpoints' / 'prior'} and train the prior again"
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
        indices, continuous = encode_whole(model, variables, batch.images)
        return indices, batch.labels, continuous

    encode = parallel.compile(encode_batch, sharded_result=True)
    present = np.asarray(_present(model, variables))
    variables = parallel.replicate(variables)
    arrays: dict[str, np.ndarray] = {"present": present}
    for name in SPLITS:
        split: Split = getattr(dataset, name)
        parts = []
        with contextlib.closing(eval_batches(split, batch_size=batch_size, **parallel.share)) as batches:
            for batch in preemption.watch(parallel.prefetch(batches)):
                indices, labels, continuous = parallel.gather(encode(variables, batch))
                parts.append((indices, labels, continuous))
        indices, labels, continuous = [np.concatenate(part)[: len(split)] for part in zip(*parts, strict=True)]
        if has_residual(model.latent):
            continuous = continuous[present[indices]]
        arrays |= {f"{name}_indices": indices, f"{name}_labels": labels, f"{name}_continuous": continuous}
    return arrays


def _present(model: Autoencoder, variables: Variables) -> jax.Array:
    """Which codes have a continuous part, `[K]` bool."""
    if model.latent.mode in ("vq", "projected"):
        return jnp.full(model.latent.num_codes, model.latent.mode == "projected")
    return ~frequent(model.latent, variables.state.frequency)


def read_arrays(path: Path, *names: str, advice: str = "delete it and run train.py again") -> dict[str, np.ndarray]:
    """The stored arrays, or those of these names, without pickle; UserError if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names or stored.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): {advice}") from None
