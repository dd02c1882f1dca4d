"""The losses, term by term; pure functions of images `[B, H, W, C]` in [-1, 1] and latents `[B, h, w, D]`.

    L = mean((x~ - x)²) + codebook_weight mean((z_q - sg z_e)²)
      + commitment_weight mean((z_e - sg t)²) + projection_weight Σ C (P - sg z_q)² / (B h w D)

and, in training, entropy_weight (E[H(p)] - H(E[p])). Every other term is computed from the raw latents, before the
straight-through line, and is a mean over all elements, so the mean over equal shards of a batch is the loss of the
batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient
from jax.typing import ArrayLike

from hvq_jax.latents import HybridLatent
from hvq_jax.options import Options, option
from hvq_jax.registry import choose

# What encoder outputs are committed to. Each takes the latent and returns t.
COMMITMENT_TARGETS: dict[str, Callable[[HybridLatent], jax.Array]] = {
    "code": lambda latent: latent.z_q,
    "projection": lambda latent: latent.projection,
}
CommitmentTarget = Literal["code", "projection"]


@dataclasses.dataclass(frozen=True)
class LossOptions(Options):
    """Weights of the terms. Terms that a quantizer does not train with are left out of the sum."""

    codebook_weight: float = option(1.0, "weight of |z_q - sg z_e|² (codes that are learned by gradient)", low=0)
    commitment_weight: float = option(0.25, "weight of |z_e - sg t|², beta (all but fsq, residual_fsq, diveq)", low=0)
    commitment_target: CommitmentTarget = option(
        "code", "t, what encoder outputs are committed to: the code or the projection", choices=COMMITMENT_TARGETS
    )
    projection_weight: float = option(0.25, "weight of |P - sg z_q|² (latents that project)", low=0)
    entropy_weight: float = option(
        0.0,
        "weight of E[H(p)] - H(E[p]), p = softmax(-distance² / temperature): each vector sure of its code, all codes "
        "in use; 0: off",
        low=0,
    )
    entropy_temperature: float = option(1.0, "temperature of that softmax", low=1e-6)


T = TypeVar("T")


@struct.dataclass
class Losses(Generic[T]):
    """The unweighted terms: `[B]` float32, one value per image, or a statistic of them."""

    reconstruction: T
    codebook: T
    commitment: T
    projection: T


def _mean_per_image(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def losses_per_image(
    images: ArrayLike,
    reconstructions: ArrayLike,
    z_e: ArrayLike,
    latent: HybridLatent,
    *,
    commitment_target: CommitmentTarget = "code",
) -> Losses[jax.Array]:
    """Return the four terms, each `[B]`.

    >>> from hvq_jax.latents import plain_latent
    >>> z_e, code, images = jnp.array([[3.0, 4.0]]), jnp.array([[1.0, 0.0]]), jnp.zeros((1, 2, 2, 1))
    >>> terms = losses_per_image(images, images + 0.5, z_e, plain_latent(z_e, code, jnp.array([7]), code))
    >>> terms.reconstruction.tolist(), terms.commitment.tolist()  # 0.5², (2² + 4²) / 2
    ([0.25], [10.0])

    Args:
        images: [B, H, W, C] float32 in [-1, 1].
        reconstructions: [B, H, W, C] float.
        z_e: [B, ..., D] float.
        latent: the latent of `z_e`.
        commitment_target: a name in `COMMITMENT_TARGETS`; "code": t = z_q, "projection": t = P(z_e, z_q).

    Raises:
        ArgumentError: the name is unknown.
    """
    images, reconstructions, z_e = jnp.asarray(images), jnp.asarray(reconstructions), jnp.asarray(z_e)
    terms = latent_losses(z_e, latent, _mean_per_image, commitment_target=commitment_target)
    squares = jnp.square(reconstructions.astype(jnp.float32) - images)
    return dataclasses.replace(terms, reconstruction=_mean_per_image(squares))


def latent_losses(
    z_e: ArrayLike,
    latent: HybridLatent,
    mean: Callable[[jax.Array], jax.Array],
    *,
    commitment_target: CommitmentTarget = "code",
) -> Losses[jax.Array]:
    """Return the terms of a latent of any shape, with 0 for the reconstruction.

    The projection term counts the positions where the decoder sees the projection, by `where` and not by a product.

    >>> from hvq_jax.latents import plain_latent
    >>> z_e, code = jnp.array([[3.0, 4.0]]), jnp.array([[1.0, 0.0]])
    >>> latent_losses(z_e, plain_latent(z_e, code, jnp.array([7]), code), jnp.mean).codebook.item()
    10.0

    Args:
        z_e: [..., D] float.
        latent: the latent of `z_e`.
        mean: takes the squares `[..., D]` of a term and returns their mean, over the axes that it likes.
        commitment_target: a name in `COMMITMENT_TARGETS`; "code": t = z_q, "projection": t = P(z_e, z_q).

    Raises:
        ArgumentError: the name is unknown.
    """
    z_e = jnp.asarray(z_e)
    z_e = z_e.astype(jnp.float32)
    pulled = jnp.square(latent.projection - stop_gradient(latent.z_q))
    committed, target = z_e, choose("commitment_target", commitment_target, COMMITMENT_TARGETS)(latent)
    if latent.numbers is not None and latent.rounded is not None:
        committed, target = latent.numbers, latent.rounded
    return Losses(
        reconstruction=jnp.zeros((), jnp.float32),
        codebook=mean(jnp.square(latent.z_q - stop_gradient(z_e))),
        commitment=mean(jnp.square(committed - stop_gradient(target))),
        projection=mean(jnp.where(latent.projected, pulled, 0.0)),
    )


def total_loss(losses: Losses[jax.Array], options: LossOptions) -> jax.Array:
    """Return the weighted sum `[B]`; its mean over the batch is the training loss.

    >>> terms = Losses(*jnp.array([[1.0], [4.0], [4.0], [8.0]]))
    >>> total_loss(terms, LossOptions(codebook_weight=0.0)).tolist()
    [4.0]
    """
    return (
        losses.reconstruction
        + options.codebook_weight * losses.codebook
        + options.commitment_weight * losses.commitment
        + options.projection_weight * losses.projection
    )


def masked_mean(
    values: ArrayLike, mask: ArrayLike | None, axis_name: str | None = None, axis: int | tuple[int, ...] | None = None
) -> jax.Array:
    """Return the mean of `values` over the axes `axis`, of the positions where `mask` is True; 0 if there are none.

    With devices, it is this device's share of the sum over its share of the count, so that the mean over the devices of
    `axis_name` is the mean over the positions of all of them, however these are spread.

    >>> masked_mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False])).item()
    1.5

    Args:
        values: float, of any shape.
        mask: bool, of the leading axes of `values`; None: all positions count.
        axis_name: the axis of devices, or None.
        axis: axes that the mean is over, as in `jnp.mean`; with a mask all of the mask's, and none of others.
    """
    values = jnp.asarray(values)
    mask = None if mask is None else jnp.asarray(mask)
    if mask is None:
        return jnp.mean(values, axis=axis)
    everywhere = mask.reshape(*mask.shape, *[1] * (values.ndim - mask.ndim))
    count = jnp.sum(mask, dtype=jnp.float32)
    if axis_name:
        count = jax.lax.pmean(count, axis_name)
    others = values.size // max(mask.size, 1) if axis is None else 1
    return jnp.sum(jnp.where(everywhere, values, 0.0), axis=axis) / (jnp.maximum(count, 1e-12) * others)


def entropy_term(
    costs: ArrayLike, temperature: float, axis_name: str | None = None, mask: ArrayLike | None = None
) -> jax.Array:
    """Return E[H(p)] − H(E[p]) `[]` in nats, p = softmax(−costs / temperature) over the codes.

    It is small where each vector is sure of its code and all codes are used equally (Yu et al., 2023,
    arXiv:2310.05737). E[p] is the mean over the global batch, also over the devices of `axis_name`; E[H(p)] is this
    device's mean, whose mean over the devices is that of the batch.

    >>> entropy_term(jnp.array([[0.0, 99.0], [99.0, 0.0]]), temperature=1.0).round(4).item()
    -0.6930999755859375

    Args:
        costs: [..., K] float32, from `code_costs`.
        temperature: temperature of the softmax.
        axis_name: the axis of devices, or None.
        mask: [...] bool, False where a position does not count; None: nowhere.
    """
    costs = jnp.asarray(costs)
    mask = None if mask is None else jnp.asarray(mask)
    log_p = jax.nn.log_softmax(-costs / temperature)
    p = jnp.exp(log_p)
    # 0 log 0 = 0, with a gradient of zero too.
    each = -jnp.sum(p * jnp.where(p > 0, log_p, 0.0), axis=-1)
    mean_p = masked_mean(p, mask, axis_name, axis=tuple(range(p.ndim - 1)))
    if axis_name:
        mean_p = jax.lax.pmean(mean_p, axis_name)
    smallest = jnp.finfo(jnp.float32).tiny
    return masked_mean(each, mask, axis_name) + jnp.sum(mean_p * jnp.log(jnp.maximum(mean_p, smallest)))
