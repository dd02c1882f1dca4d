"""The losses, term by term; pure functions of images `[B, H, W, C]` in [-1, 1] and latents `[B, h, w, D]`.

    L = mean((x~ - x)²) + codebook_weight mean((z_q - sg z_e)²)
      + commitment_weight mean((z_e - sg t)²) + projection_weight Σ C (P - sg z_q)² / (B h w D)

and, in training, entropy_weight (E[H(p)] - H(E[p])). Every other term is computed from the raw latents, before the
straight-through line, and is a mean over all elements, so the mean over equal shards of a batch is the loss of the
batch.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient

from hvq_jax.latents import HybridLatent

COMMITMENT_TARGETS = ("code", "projection")


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the terms. `codebook` must be 0 where the codes are not trained by gradient."""

    codebook: float = 1.0
    commitment: float = 1.0
    projection: float = 1.0
    commitment_target: str = "code"  # "code": t = z_q; "projection": t = P(z_e, z_q)
    entropy: float = 0.0  # of `entropy_term`, which is not computed at 0
    entropy_temperature: float = 1.0


@struct.dataclass
class Losses:
    """The unweighted terms: `[B]` float32, one value an image; or whatever statistic is taken of those."""

    reconstruction: Any
    codebook: Any
    commitment: Any
    projection: Any


def _mean_per_image(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def losses_per_image(
    images: jax.Array,
    reconstructions: jax.Array,
    z_e: jax.Array,
    latent: HybridLatent,
    *,
    mode: str,
    commitment_target: str = "code",
) -> Losses:
    """The four terms. The projection term is zero for `vq` and `frequency`, which do not project.

    C = 1 - M is applied by `where`: where the decoder sees the plain code there is nothing to pull.
    """
    z_e = z_e.astype(jnp.float32)
    pulled = jnp.square(latent.projection - stop_gradient(latent.z_q))
    projects = mode in ("projected", "combined")
    target = latent.z_q if commitment_target == "code" else latent.projection
    return Losses(
        reconstruction=_mean_per_image(jnp.square(reconstructions.astype(jnp.float32) - images)),
        codebook=_mean_per_image(jnp.square(latent.z_q - stop_gradient(z_e))),
        commitment=_mean_per_image(jnp.square(z_e - stop_gradient(target))),
        projection=_mean_per_image(jnp.where(latent.discrete, 0.0, pulled) if projects else jnp.zeros_like(pulled)),
    )


def total_loss(losses: Losses, weights: LossWeights) -> jax.Array:
    """The weighted sum `[B]`; its mean over the batch is the training loss."""
    return (
        losses.reconstruction
        + weights.codebook * losses.codebook
        + weights.commitment * losses.commitment
        + weights.projection * losses.projection
    )


def entropy_term(costs: jax.Array, temperature: float, axis_name: str | None = None) -> jax.Array:
    """E[H(p)] − H(E[p]) `[]` in nats, p = softmax(−costs / temperature) over the codes; `costs` is `[..., K]`.

    Small where each vector is sure of its code and all codes are used alike (Yu et al., 2023, arXiv:2310.05737). E[p]
    is the mean over the global batch, over the devices of `axis_name` too; E[H(p)] is this device's mean.
    """
    log_p = jax.nn.log_softmax(-costs / temperature)
    p = jnp.exp(log_p)
    # 0 log 0 = 0, with a gradient of zero too.
    each = -jnp.sum(p * jnp.where(p > 0, log_p, 0.0), axis=-1)
    mean_p = jnp.mean(p, axis=tuple(range(p.ndim - 1)))
    if axis_name:
        mean_p = jax.lax.pmean(mean_p, axis_name)
    smallest = jnp.finfo(jnp.float32).tiny
    return jnp.mean(each) + jnp.sum(mean_p * jnp.log(jnp.maximum(mean_p, smallest)))
