"""Our subjects of the rows. This module starts JAX, so only our process imports it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workloads.rows import NUM_CLASSES, NUM_CODES, Row, Subject, make_images, make_indices, make_labels
from benchmarks.workloads.training_step import TrainingStep
from configs import reference
from hvq_jax import autoencoder
from hvq_jax.autoencoder import Variables
from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.side_by_side import side_by_side
from hvq_jax.files import write_arrays
from hvq_jax.images import to_float
from hvq_jax.latents import latent_from_codes
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.sampling import DrawnLatents, sample
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.runs.options import RunOptions, from_dict
from hvq_jax.torch_reference.weights import autoencoder_to_torch, pixelcnn_to_torch
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.prior_stage import PriorStage


def subject(row: Row, work: str, weights: Path) -> Subject:
    """Return our subject of a row, and write the weights for the others."""
    return (_prior if row.is_prior else _autoencoder)(row, work, weights)


def make_options(row: Row) -> RunOptions:
    """Return the options of the config `reference` with the row's sizes."""
    config = reference.get_config("vq")
    config.latent.dim, config.latent.num_codes, config.network.factor = row.dim, NUM_CODES, row.factor
    return from_dict(config)


def _autoencoder(row: Row, work: str, weights: Path) -> Subject:
    options, images = make_options(row), make_images(row)
    model = options.autoencoder_model(images.shape[1:])

    def save(params: Any, state: Any) -> None:
        write_arrays(weights, autoencoder_to_torch({"params": params, "batch_stats": state.batch_stats}))

    if work == "train":
        stage = AutoencoderStage(model, images[:1])
        batch = Batch(images, make_labels(row), np.ones(row.batch, bool))
        step = TrainingStep(stage, options.autoencoder, batch)
        save(step.state.params, step.state.model_state)
        return step, lambda report: float(report.loss[0])
    variables = jax.jit(partial(autoencoder.init, model))(jax.random.key(0))
    save(variables.params, variables.state)

    @jax.jit
    def encode(variables: Variables, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        z_e = autoencoder.encode(model, variables, to_float(images))
        return z_e, nearest_codes(z_e, autoencoder.codes(model, variables))

    @jax.jit
    def decode(variables: Variables, indices: jax.Array) -> jax.Array:
        z_bar = latent_from_codes(indices, autoencoder.codes(model, variables))
        return autoencoder.decode(model, variables, z_bar)

    def distance(result: tuple[jax.Array, jax.Array]) -> float:
        z_e, indices = (np.asarray(array) for array in result)
        return float(np.square(np.asarray(autoencoder.codes(model, variables))[indices] - z_e).mean())

    if work == "encode":
        images = jax.device_put(images)
        return lambda: jax.block_until_ready(encode(variables, images)), distance
    codes = jax.device_put(make_indices(row))
    return lambda: jax.block_until_ready(decode(variables, codes)), lambda x: float(np.square(x).mean())


def _prior(row: Row, work: str, weights: Path) -> Subject:
    options, (height, width) = make_options(row), row.shape
    model = options.prior_model(num_classes=NUM_CLASSES, grid=(height, width))
    stage = PriorStage(model, (height, width), 16 * height * width)
    batch = Batch(make_indices(row), make_labels(row), np.ones(row.batch, bool))

    def save(params: Any) -> None:
        write_arrays(weights, pixelcnn_to_torch(params))

    if work == "train_prior":
        step = TrainingStep(stage, options.prior, batch)
        save(step.state.params)
        return step, lambda report: float(report.loss[0])
    params, _ = jax.jit(stage.init)(jax.random.key(0))
    save(params)
    if work == "loss":
        loss = jax.jit(lambda params, batch: stage.loss(params, None, batch, jax.random.key(0), None)[0])
        return lambda: loss(params, batch), float
    return sampler(model, params, batch.labels, height, width), lambda result: 0.0


def sampler(prior: Prior, params: Any, labels: np.ndarray, height: int, width: int) -> Callable[[], Any]:
    """Return a compiled function that draws a latent for each label, as `TrainedRun.sample` does."""
    key = jax.random.key(0)

    @jax.jit
    def draw(params: Any, labels: jax.Array, first: jax.Array) -> DrawnLatents:
        keys = jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(len(labels), dtype=jnp.int32))
        return sample(prior, params, labels, keys, height, width)

    def draw_part(part: slice) -> DrawnLatents:
        return draw(params, labels[part], part.start)

    return lambda: jax.block_until_ready(side_by_side(draw_part, len(labels)))
