"""The compiled programs whose growth is measured, with given sizes, and the memory that XLA plans for each."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.workloads.training_step import TrainingStep
from configs import default
from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.programs import program_bytes
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.sampling import sample
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.runs.options import RunOptions, from_dict
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.prior_stage import PriorStage

_NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the models of `configs/default.py` and of their batches."""

    batch: int = 64
    dim: int = 64  # D
    codes: int = 512  # K
    image: int = 28  # side of a square image with one channel
    grid: int = 7  # side of the square grid of positions that the prior models
    prior_batch: int = 16
    layers: int = 15  # of the prior


@dataclasses.dataclass(frozen=True)
class Program:
    """A function that waits for its result, and the memory of its compiled program."""

    call: Callable[[], Any]
    mib: float


def planned_mib(compiled: Any) -> float:
    """Return `program_bytes` in MiB; not a number where the backend does not say."""
    planned = program_bytes(compiled)
    return math.nan if planned is None else planned / 2**20


def _options(sizes: Sizes, latent: str = "projected") -> RunOptions:
    config = default.get_config(latent)
    config.latent.dim, config.latent.num_codes = sizes.dim, sizes.codes
    config.prior.num_layers = sizes.layers
    return from_dict(config)


def _make_batch(items: np.ndarray) -> Batch:
    labels = np.arange(len(items), dtype=np.int32) % _NUM_CLASSES
    return Batch(items, labels, np.ones(len(items), bool))


def _prior(sizes: Sizes) -> tuple[Prior, Batch]:
    shape = (sizes.prior_batch, sizes.grid, sizes.grid)
    indices = np.random.default_rng(0).integers(0, sizes.codes, shape, np.int32)
    model = _options(sizes, "vq").prior_model(num_classes=_NUM_CLASSES, grid=(sizes.grid, sizes.grid))
    return model, _make_batch(indices[..., None])


def autoencoder_step(sizes: Sizes) -> Program:
    """Return the autoencoder's training step on noise; the time does not depend on the content of the images."""
    options, shape = _options(sizes), (sizes.image, sizes.image, 1)
    images = np.random.default_rng(0).integers(0, 256, (sizes.batch, *shape), np.uint8)
    stage = AutoencoderStage(options.autoencoder_model(shape), images[:1])
    step = TrainingStep(stage, options.autoencoder, _make_batch(images))
    return Program(step, planned_mib(step.compile()))


def codebook_search(sizes: Sizes) -> Program:
    """Return `nearest_codes` alone, for the latents of a batch."""
    latent_shape = _options(sizes).autoencoder_model((sizes.image, sizes.image, 1)).latent_shape
    z_e = jax.random.normal(jax.random.key(0), (sizes.batch, *latent_shape, sizes.dim))
    codes = jax.random.normal(jax.random.key(1), (sizes.codes, sizes.dim))
    search = jax.jit(nearest_codes).lower(z_e, codes).compile()
    return Program(lambda: jax.block_until_ready(search(z_e, codes)), planned_mib(search))


def prior_step(sizes: Sizes) -> Program:
    """Return the PixelCNN's training step."""
    model, batch = _prior(sizes)
    stage = PriorStage(model, (sizes.grid, sizes.grid), 16 * sizes.grid**2)
    step = TrainingStep(stage, _options(sizes).prior, batch)
    return Program(step, planned_mib(step.compile()))


def sampling(sizes: Sizes) -> Program:
    """Return the sampling of a batch with the PixelCNN, in which each feature is computed once."""
    model, batch = _prior(sizes)
    params = jax.jit(model.init)(jax.random.key(0), batch.items[:1], batch.labels[:1])
    keys = jax.random.split(jax.random.key(1), sizes.prior_batch)
    arguments = jax.device_put((params, batch.labels, keys))
    draw = jax.jit(partial(sample, model, height=sizes.grid, width=sizes.grid)).lower(*arguments).compile()
    return Program(lambda: jax.block_until_ready(draw(*arguments)), planned_mib(draw))


WORKS: dict[str, Callable[[Sizes], Program]] = {
    "step": autoencoder_step,
    "search": codebook_search,
    "prior step": prior_step,
    "sampling": sampling,
}
