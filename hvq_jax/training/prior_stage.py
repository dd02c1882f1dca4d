"""The second stage: a prior over the latents of the frozen autoencoder, as the training loop sees it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.data.pipeline import Batch
from hvq_jax.metrics import Mean
from hvq_jax.priors.heads import ResidualHead
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.prior import Nats, Prior
from hvq_jax.training.logging import RunLog
from hvq_jax.training.loop import Stage

NAME = "prior"


@struct.dataclass
class NatsPerLatent:
    """Of codes and of continuous parts, each the kind of number that is summed."""

    codes: Any
    continuous: Any
    density: Any = None  # of residuals, in evaluation; see `Prior.density`


def prior_stage(
    model: Prior,
    latent_shape: tuple[int, int],
    num_pixels: int,
    present: Any = None,
    *,
    label_dropout: float = 0.0,
) -> Stage:
    """The stage for `model` on tokens `[B, h, w, 1 + c]`, or plain codes `[B, h, w]`.

    `num_pixels` (H·W) turns bits an image into bits a pixel; 0 where there are no images. `present` `[K]` bool: which
    codes have a continuous part; None for plain codes. In training labels are replaced by no class with probability
    `label_dropout`.
    """
    conditional = model.num_classes > 0
    channels = model.continuous.channels if model.continuous is not None else 0

    def nats(params: Any, batch: Batch, labels: jax.Array, **options: Any) -> Nats:
        tokens = batch.images.astype(jnp.int32)
        tokens = tokens if tokens.ndim == 4 else tokens[..., None]
        scored: Any = model.apply(params, tokens, labels if conditional else None, present, **options)
        return scored.of_latents()

    def init(key: jax.Array) -> tuple[Any, None]:
        tokens = jnp.zeros((1, *latent_shape, 1 + channels), jnp.int32)
        labels = jnp.zeros(1, jnp.int32) if conditional else None
        return model.init(key, tokens, labels, present), None

    def loss(
        params: Any, state: None, batch: Batch, key: jax.Array, axis_name: str | None
    ) -> tuple[jax.Array, tuple[None, NatsPerLatent]]:
        del state
        if axis_name:  # each device drops labels and features of its own
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        label_key, dropout_key = jax.random.split(key)
        dropped = jax.random.bernoulli(label_key, label_dropout, batch.labels.shape)
        labels = jnp.where(dropped, NO_CLASS, batch.labels)
        per_latent = nats(params, batch, labels, train=True, rngs={"dropout": dropout_key})
        means = NatsPerLatent(jnp.mean(per_latent.codes), jnp.mean(per_latent.continuous))
        return (means.codes + means.continuous) / math.prod(latent_shape), (None, means)

    def evaluate(params: Any, state: None, batch: Batch) -> NatsPerLatent:
        del state
        per_latent = nats(params, batch, batch.labels)
        density = None
        if isinstance(model.continuous, ResidualHead):
            labels = batch.labels if conditional else None
            scored: Any = model.apply(params, batch.images.astype(jnp.int32), labels, present, method="density")
            density = Mean.of(scored.sum(axis=(1, 2)), batch.mask)
        codes, continuous = (Mean.of(part, batch.mask) for part in (per_latent.codes, per_latent.continuous))
        return NatsPerLatent(codes, continuous, density)

    def figures(codes: float, continuous: float) -> dict[str, float]:
        parts = {"nats_of_codes": codes, "nats_of_continuous": continuous} if channels else {}
        return {"nats_per_latent": codes + continuous, **parts}

    def summarise_steps(metrics: NatsPerLatent) -> dict[str, float]:
        return figures(float(metrics.codes.mean()), float(metrics.continuous.mean()))

    def summarise(sums: NatsPerLatent) -> dict[str, float]:
        of_latent = figures(float(sums.codes.value), float(sums.continuous.value))
        bits = of_latent["nats_per_latent"] / math.log(2)
        of_image = {"bits_per_image": bits, "bits_per_pixel": bits / num_pixels} if num_pixels else {}
        if num_pixels and channels:
            per_pixel = 1 / (math.log(2) * num_pixels)
            of_image["bits_per_pixel_of_codes"] = of_latent["nats_of_codes"] * per_pixel
            of_image["bits_per_pixel_of_continuous"] = of_latent["nats_of_continuous"] * per_pixel
        density = {} if sums.density is None else {"density_of_continuous": float(sums.density.value)}
        return {"loss": of_latent["nats_per_latent"] / math.prod(latent_shape), **of_latent, **of_image, **density}

    def show(log: RunLog, step: int, params: Any, state: None, sums: NatsPerLatent) -> None:
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
