"""The training data of the second stage: the latent of every image, encoded once and stored, and its tokens."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.data.datasets import ImageDataset, Split
from hvq_jax.data.held_out import SPLITS
from hvq_jax.data.pipeline import Batch, eval_batches
from hvq_jax.devices.cluster import wait_for_all
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.images import as_float
from hvq_jax.latents import Z_E, Latent
from hvq_jax.layout import LATENTS
from hvq_jax.priors.options import TokenOptions
from hvq_jax.priors.tokens import Parts, Tables, check_residuals, make_tables, split_latent, to_tokens
from hvq_jax.runs.latent_files import check_latents, read_latents, write_latents

_PIECE = 1024  # latents whose residuals are held in memory at all positions at a time


@dataclasses.dataclass(frozen=True)
class LatentData:
    """The splits as tokens: items are `[N, h, w, L + c]`, int16 where that is enough, else int32."""

    train: Split
    validation: Split
    test: Split
    tables: Tables


def encode_parts(model: Autoencoder, variables: Variables, images: jax.Array) -> Parts:
    """Return the parts of the latents of images `[B, H, W, C]`, uint8 or float in [-1, 1], before rounding."""
    z_e = autoencoder.encode(model, variables, as_float(images))
    latent = autoencoder.quantize(model, variables, z_e)
    return split_latent(model.row, z_e, latent.z_q, latent.indices, model.latent_options.projection_groups)


def latent_data(
    model: Autoencoder,
    read_variables: Callable[[], Variables],
    dataset: ImageDataset,
    *,
    workdir: Path,
    checkpoint_step: int,
    batch_size: int,
    options: TokenOptions,
    parallel: Parallel,
    preemption: Preemption,
) -> LatentData:
    """Return the latents of `dataset` by the autoencoder of `checkpoint_step`, from the workdir if stored there.

    Otherwise `read_variables` is called for the autoencoder's arrays.
    """
    num_classes = len(dataset.class_names)
    sizes = {f"N_{split}": len(getattr(dataset, split)) for split in SPLITS}
    if not (workdir / LATENTS).exists():
        arrays = _encode(
            model, read_variables(), dataset, batch_size=batch_size, parallel=parallel, preemption=preemption
        )
        write_latents(workdir, arrays, checkpoint_step, model, num_classes, sizes)
        wait_for_all("latents are written")
    check_latents(workdir, checkpoint_step)
    return tokenize(model.row, read_latents(workdir, model, num_classes, sizes), options)


def tokenize(row: Latent, stored: Mapping[str, np.ndarray], options: TokenOptions) -> LatentData:
    """Return the training data of a prior from the arrays of a `latents.npz`."""
    tables = fit_tables(row, stored, options)
    return LatentData(**{name: _split(stored, name, tables) for name in SPLITS}, tables=tables)


def fit_tables(row: Latent, stored: Mapping[str, np.ndarray], options: TokenOptions) -> Tables:
    """Return the tables that fit the training latents of a `latents.npz`."""
    indices, lengths = stored["train_indices"], stored.get("train_lengths")
    return make_tables(row, stored["frequent"], indices, lengths, options, index_shape=indices.shape[3:])


def at_all_positions(residuals: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return `residuals` `[n, D]` of the n positions `present` `[N, h, w]` bool as `[N, h, w, D]`, 0 elsewhere.

    >>> at_all_positions(np.array([[2.0]]), np.array([[[False, True]]])).tolist()
    [[[[0.0], [2.0]]]]
    """
    dense = np.zeros((*present.shape, residuals.shape[-1]), residuals.dtype)
    dense[present] = residuals
    return dense


@dataclasses.dataclass(frozen=True)
class _Residuals:
    """The residuals of a split as they are stored: rows `[n, D]` for the positions where `present` `[N, h, w]`."""

    rows: np.ndarray
    present: np.ndarray

    @cached_property
    def _starts(self) -> np.ndarray:
        """The row of each latent's first residual, and n."""
        return np.append(0, np.cumsum(np.count_nonzero(self.present, axis=(1, 2))))

    def read(self, latents: np.ndarray) -> np.ndarray:
        """Return residuals `[n, h, w, D]` float32 at all positions of `latents`, int [n]; 0 where there is none."""
        starts, ends = self._starts[latents], self._starts[latents + 1]
        rows = np.concatenate([self.rows[start:end] for start, end in zip(starts, ends, strict=True)])
        return at_all_positions(rows.astype(np.float32, copy=False), self.present[latents])


@dataclasses.dataclass(frozen=True)
class ResidualSplit(Split):
    """A split whose latents are read as pairs: tokens, and the residuals before rounding, to evaluate their density."""

    residuals: _Residuals

    def read(self, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return ((tokens, residuals `[n, h, w, D]` float32), labels) of the latents `rows`, int [n]."""
        tokens, labels = super().read(rows)
        return (tokens, self.residuals.read(rows)), labels


def _split(stored: Mapping[str, np.ndarray], name: str, tables: Tables) -> Split:
    """Return the split `name` as tokens; held-out ones with their residuals where they have them."""
    labels = stored[f"{name}_labels"]
    if not tables.step:
        return Split(_tokens(stored, name, tables, None), labels)
    present = np.asarray(tables.has_residual)[stored[f"{name}_indices"]]
    residuals = _Residuals(stored[f"{name}_residuals"], present)
    tokens = _tokens(stored, name, tables, residuals)
    return Split(tokens, labels) if name == "train" else ResidualSplit(tokens, labels, residuals)


def _tokens(stored: Mapping[str, np.ndarray], split: str, tables: Tables, residuals: _Residuals | None) -> np.ndarray:
    """Return the tokens `[N, h, w, L + c]` of a split, computed in pieces; int16 if they fit, else int32."""
    indices, lengths = stored[f"{split}_indices"], stored.get(f"{split}_lengths")
    encode = jax.jit(to_tokens)
    pieces = []
    for rows in np.array_split(np.arange(len(indices)), range(_PIECE, len(indices), _PIECE)):
        parts = Parts(
            indices[rows],
            None if lengths is None else lengths[rows],
            None if residuals is None else residuals.read(rows),
        )
        tokens = np.asarray(encode(parts, tables))
        check_residuals(tokens, tables)
        fits = np.abs(tokens).max(initial=0) <= np.iinfo(np.int16).max
        pieces.append(tokens.astype(np.int16) if fits else tokens)
    return np.concatenate(pieces)


def _encode(
    model: Autoencoder,
    variables: Variables,
    dataset: ImageDataset,
    *,
    batch_size: int,
    parallel: Parallel,
    preemption: Preemption,
) -> dict[str, np.ndarray]:
    """Return the arrays of a `latents.npz`, except the step."""

    def encode_batch(variables: Variables, batch: Batch) -> tuple[Parts, jax.Array]:
        return encode_parts(model, variables, batch.items), batch.labels

    encode = parallel.compile(encode_batch, sharded_result=True)
    frequent = np.ones(model.num_codes, bool)
    if model.row.masked:
        frequent = np.asarray(autoencoder.frequent_codes(model, variables))
    has_residual = np.asarray(model.row.codes_with(Z_E, jnp.asarray(frequent)))
    variables = parallel.replicate(variables)
    arrays: dict[str, np.ndarray] = {"frequent": frequent}
    for name in SPLITS:
        split: Split = getattr(dataset, name)
        pieces = []
        with contextlib.closing(eval_batches(split, batch_size=batch_size, **parallel.share)) as batches:
            for batch in preemption.watch(parallel.prefetch(batches)):
                parts, labels = parallel.gather(encode(variables, batch))
                given = {key: value for key, value in vars(parts).items() if value is not None}
                pieces.append({**given, "labels": labels})
        whole = {key: np.concatenate([piece[key] for piece in pieces])[: len(split)] for key in pieces[0]}
        if "residuals" in whole:
            whole["residuals"] = whole["residuals"][has_residual[whole["indices"]]]
        if name in dataset.names:
            whole["names"] = np.char.decode(dataset.names[name], "utf-8")
        arrays |= {f"{name}_{key}": value for key, value in whole.items()}
    return arrays
