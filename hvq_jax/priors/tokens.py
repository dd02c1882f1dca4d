"""What of a hybrid latent is transmitted: whole numbers, from which the decoder's input is made again.

Tokens are `[..., 1 + c]` int32: the code, and behind it, where a prior covers them, the bins of the signed lengths ρ
(c = g groups; latents `projected` and `combined`) or the residual z_e - e in whole multiples of a step (c = D; latent
`frequency`). They are 0 where the code has no continuous part.
"""

import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.latents import latent_from_codes
from hvq_jax.priors.bins import from_bins, to_bins


@struct.dataclass
class Tables:
    """What both sides know: made once, before the prior is trained, and kept with it."""

    present: jax.Array  # [K] bool, which codes have a continuous part: those that are not frequent, by the frozen table
    centroids: jax.Array | None  # [1, G] or [K·g, G] float32, of bins; None where no length is transmitted
    step: float = struct.field(pytree_node=False, default=0.0)  # of residuals; 0 where none is transmitted


def to_tokens(indices: jax.Array, continuous: jax.Array, tables: Tables) -> jax.Array:
    """`[..., 1 + c]` int32.

    Args:
        indices: [...] int32, the codes.
        continuous: signed lengths [..., g] or residuals [..., D], float; anything where a code has none.
        tables: as the prior has them. With a single bin its number says nothing and is left out: c = 0.
    """
    if tables.step:
        parts = jnp.round(continuous / tables.step).astype(jnp.int32)
    elif tables.centroids is not None and tables.centroids.shape[-1] > 1:
        parts = to_bins(continuous, indices, tables.centroids)
    else:
        return indices[..., None]
    parts = jnp.where(tables.present[indices][..., None], parts, 0)
    return jnp.concatenate([indices[..., None], parts], axis=-1)


def continuous_parts(tokens: jax.Array, tables: Tables, groups: int = 1) -> jax.Array:
    """What `to_tokens` was given, rounded: signed lengths `[..., groups]` or residuals `[..., D]`; of `vq` `[..., 0]`.

    They are 0 where the code has none.
    """
    indices, parts = tokens[..., 0], tokens[..., 1:]
    present = tables.present[indices][..., None]
    if tables.centroids is not None:
        bins = parts if parts.shape[-1] else jnp.zeros((*indices.shape, groups), jnp.int32)
        return jnp.where(present, from_bins(bins, indices, tables.centroids), 0.0)
    return jnp.where(present, tables.step * parts, 0.0)


def from_tokens(tokens: jax.Array, tables: Tables, codebook: jax.Array, groups: int = 1) -> tuple[jax.Array, jax.Array]:
    """The decoder's input `[..., D]` of tokens `[..., 1 + c]`, and the gains in it: `[...]`, or `[..., g]` for g > 1.

    Gains are 1 where the decoder does not see a multiple of the code.
    """
    indices = tokens[..., 0]
    codes, present = codebook[indices], tables.present[indices][..., None]
    parts = continuous_parts(tokens, tables, groups)
    gains = jnp.ones((*indices.shape, groups), jnp.float32)
    if tables.centroids is not None:
        lengths = jnp.linalg.norm(codes.reshape(*indices.shape, groups, -1), axis=-1)
        gains = jnp.where(present, parts / jnp.maximum(lengths, 1e-6), 1.0)
    gains = gains if groups > 1 else gains[..., 0]
    latents = latent_from_codes(indices, codebook, gains)
    return latents + parts if tables.step else latents, gains
