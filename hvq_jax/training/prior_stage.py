"""The second stage: a prior over the codes of the frozen autoencoder, as the training loop sees it."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from hvq_jax.data.pipeline import Batch
from hvq_jax.metrics import Mean
from hvq_jax.priors.pixelcnn import PixelCNN, negative_log_likelihood
from hvq_jax.training.logging import RunLog
from hvq_jax.training.loop import Stage

NAME = "prior"


def prior_stage(model: PixelCNN, latent_shape: tuple[int, int], num_pixels: int) -> Stage:
    """The stage for `model` on index grids `[B, h, w]`; `num_pixels` (H·W) turns bits an image into bits a pixel."""

    def nats(params: Any, batch: Batch) -> jax.Array:
        labels = batch.labels if model.num_classes else None
        logits: Any = model.apply(params, batch.images, labels)
        return negative_log_likelihood(logits, batch.images)

    def init(key: jax.Array) -> tuple[Any, None]:
        indices = jnp.zeros((1, *latent_shape), jnp.int32)
        labels = jnp.zeros(1, jnp.int32) if model.num_classes else None
        return model.init(key, indices, labels), None

    def loss(
        params: Any, state: None, batch: Batch, key: jax.Array, axis_name: str | None
    ) -> tuple[jax.Array, tuple[None, jax.Array]]:
        del state, key, axis_name
        nats_per_latent = jnp.mean(nats(params, batch))
        return nats_per_latent / math.prod(latent_shape), (None, nats_per_latent)

    def evaluate(params: Any, state: None, batch: Batch) -> Mean:
        del state
        return Mean.of(nats(params, batch), batch.mask)

    def summarise_steps(metrics: jax.Array) -> dict[str, float]:
        return {"nats_per_latent": float(metrics.mean())}

    def summarise(sums: Mean) -> dict[str, float]:
        per_latent = float(sums.value)
        bits = per_latent / math.log(2)
        return {
            "loss": per_latent / math.prod(latent_shape),
            "nats_per_latent": per_latent,
            "bits_per_image": bits,
            "bits_per_pixel": bits / num_pixels,
        }

    def show(log: RunLog, step: int, params: Any, state: None, sums: Mean) -> None:
        """A prior has nothing to draw during training."""

    return Stage(
        name=NAME,
        objective="nats_per_latent",
        init=init,
        loss=loss,
        evaluate=evaluate,
        summarise_steps=summarise_steps,
        summarise=summarise,
        show=show,
    )
