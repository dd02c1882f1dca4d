"""The idea of the project on one screen: latents that are discrete, continuous, or a mix of both.

Every function is pure and works on any leading shape `[..., D]`, under jit, vmap, grad and pmap. `z_e` is the
encoder's output, `codebook` the K codes, and the decoder sees `z_bar`:

    vq          z_bar = z_q                                the codes                (van den Oord et al., 2017)
    projected   z_bar = P(z_e, z_q)                        z_e projected onto the line of its code
    frequency   z_bar = M z_q + (1 - M) z_e                codes where they are frequent, z_e elsewhere
    combined    z_bar = M z_q + (1 - M) P(z_e, z_q)        codes where they are frequent, projections elsewhere
"""

import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient

MODES = ("vq", "projected", "frequency", "combined")

# Keeps a zero code's projection at zero; below 1e-18 its square underflows and the gradient is NaN.
EPSILON = 1e-12

# 64 MiB of float32, 2,600 codes for a batch of 128 7×7 latents: so many are in memory at once in the codebook search.
MOST_DISTANCES = 2**24


@struct.dataclass
class HybridLatent:
    """What one pass through the bottleneck gives; leading shape `...` is that of `z_e` without D."""

    z_bar: jax.Array  # [..., D] float32, what the decoder sees, with its gradient
    z_q: jax.Array  # [..., D] float32, the codes, differentiable in the codebook
    projection: jax.Array  # [..., D] float32, P(z_e, z_q), with the gradient of `projection_gradient`
    indices: jax.Array  # [...] int32
    discrete: jax.Array  # [..., 1] bool, M: True where the decoder sees the plain code
    gain: jax.Array  # [...] float32, alpha of P = alpha z_q


def nearest_codes(z_e: jax.Array, codebook: jax.Array) -> jax.Array:
    """Indices `[...]` int32 of the codes nearest to `z_e` `[..., D]`; ties go to the lowest index.

    Searches on |e|² − 2⟨z_e, e⟩: the constant |z_e|² would only cost digits. Always float32 at the highest matmul
    precision, since a flipped argmin is a different latent. The distances of all vectors to all codes are never held at
    once where they are more than `MOST_DISTANCES`: then parts of the codebook are searched one after the other.
    """
    chex.assert_rank(codebook, 2)
    vectors, codes = z_e.astype(jnp.float32), codebook.astype(jnp.float32)
    squares = jnp.sum(jnp.square(codes), axis=-1)
    size = max(MOST_DISTANCES // max(math.prod(vectors.shape[:-1]), 1), 1)
    if len(codes) <= size:
        return _nearest(vectors, codes, squares)[0]
    missing = -len(codes) % size
    codes = jnp.pad(codes, ((0, missing), (0, 0))).reshape(-1, size, codes.shape[-1])
    squares = jnp.pad(squares, (0, missing), constant_values=jnp.inf).reshape(-1, size)

    def search(best: Any, part: Any) -> tuple[Any, None]:
        first, *codes_and_squares = part
        indices, distances = _nearest(vectors, *codes_and_squares)
        closer = distances < best[1]  # not where they are equal: the lower index stays
        return (jnp.where(closer, first + indices, best[0]), jnp.where(closer, distances, best[1])), None

    none_yet = (jnp.zeros(vectors.shape[:-1], jnp.int32), jnp.full(vectors.shape[:-1], jnp.inf))
    first = size * jnp.arange(len(codes), dtype=jnp.int32)
    (indices, _), _ = jax.lax.scan(search, none_yet, (first, codes, squares))
    return indices


def _nearest(vectors: jax.Array, codes: jax.Array, squares: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Indices `[...]` int32 of the nearest codes, and |e|² − 2⟨z_e, e⟩ `[...]` of those; `squares` `[K]` is |e|²."""
    inner = jnp.einsum("...d,kd->...k", vectors, codes, precision=jax.lax.Precision.HIGHEST)
    distances = squares - 2.0 * inner
    return jnp.argmin(distances, axis=-1).astype(jnp.int32), jnp.min(distances, axis=-1)


def straight_through(z_e: jax.Array, value: jax.Array) -> jax.Array:
    """`value` in the forward pass, bit for bit, and the gradient of `z_e` in the backward pass (both `[..., D]`)."""
    return stop_gradient(value) + (z_e - stop_gradient(z_e))


def gain(z_e: jax.Array, code: jax.Array) -> jax.Array:
    """α = ⟨z_e, e⟩ / max(|e|², ε), `[...]`: the multiple of the code that is nearest to `z_e`."""
    return jnp.sum(z_e * code, axis=-1) / jnp.maximum(jnp.sum(code * code, axis=-1), EPSILON)


def signed_length(z_e: jax.Array, code: jax.Array) -> jax.Array:
    """ρ = ⟨z_e, e⟩ / |e|, `[...]`: the gain without the code's arbitrary length, P = ρ e/|e|."""
    norm = jnp.sqrt(jnp.maximum(jnp.sum(code * code, axis=-1), EPSILON))
    return jnp.sum(z_e * code, axis=-1) / norm


def project(z_e: jax.Array, code: jax.Array) -> jax.Array:
    """P(z_e, e) = α e, `[..., D]`: the orthogonal projection onto the line of `code`; a zero code gives zero."""
    return gain(z_e, code)[..., None] * code


# What the gradient of a projection is (the report does not say). Each takes (z_e, code); the value is P(z_e, code).
PROJECTION_GRADIENTS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    # Plain differentiation in both arguments.
    "both": project,
    # The projection applied to the straight-through output, as in the reference's code.
    "both_through_st": lambda z_e, code: project(z_e, z_e + stop_gradient(code - z_e)),
    # The code is a constant: reconstruction moves z_e along its code only.
    "encoder": lambda z_e, code: project(z_e, stop_gradient(code)),
    # The decoder's gradient goes to z_e unchanged.
    "straight_through": lambda z_e, code: straight_through(z_e, project(z_e, code)),
}


def frequent_codes(
    frequency: jax.Array,
    *,
    num_frequent: int | jax.Array | None = None,
    frequent_mass: float | None = None,
) -> jax.Array:
    """Which codes count as frequent, `[K]` bool, by the table `frequency` `[K]` (F, non-negative).

    Exactly one rule is given. `num_frequent` (S): the S most frequent codes, ties to the lowest index.
    `frequent_mass` (m): codes in falling order of F while the sum *before* them is below m ΣF. An empty table
    (ΣF = 0) makes every code frequent.
    """
    if (num_frequent is None) == (frequent_mass is None):
        raise ValueError("give exactly one of num_frequent and frequent_mass")
    order = jnp.argsort(-frequency, stable=True)
    if frequent_mass is None:
        chosen = jnp.arange(frequency.shape[0]) < jnp.asarray(num_frequent)
    else:
        running_sum = jnp.cumsum(frequency[order])
        sum_before = jnp.concatenate([jnp.zeros(1, running_sum.dtype), running_sum[:-1]])
        chosen = sum_before < frequent_mass * running_sum[-1]
    frequent = jnp.zeros(frequency.shape, bool).at[order].set(chosen)
    return frequent | (jnp.sum(frequency) == 0)


def frequency_mask(indices: jax.Array, frequent: jax.Array) -> jax.Array:
    """M `[..., 1]` bool: True where the code of `indices` `[...]` is `frequent` `[K]`."""
    return frequent[indices][..., None]


def hybrid_latent(
    z_e: jax.Array,
    codebook: jax.Array,
    indices: jax.Array,
    frequent: jax.Array,
    *,
    mode: str,
    projection_gradient: str = "straight_through",
) -> HybridLatent:
    """The latent of `mode` from `z_e` `[..., D]`, its codes `indices` `[...]` and the `frequent` codes `[K]` bool.

    `vq` and `projected` are the cases where every code, or none, is frequent, so one expression serves all four and
    frequency(S=K) = vq, combined(S=K) = vq and combined(S=0) = projected hold bit for bit. `frequent` is unused there.
    """
    chex.assert_equal_shape_prefix([z_e, indices], indices.ndim)
    z_e = z_e.astype(jnp.float32)
    z_q = codebook[indices]
    projection = PROJECTION_GRADIENTS[projection_gradient](z_e, z_q)
    if mode in ("vq", "projected"):
        frequent = jnp.full(frequent.shape, mode == "vq")
    discrete = frequency_mask(indices, frequent)
    continuous = z_e if mode == "frequency" else projection
    return HybridLatent(
        z_bar=jnp.where(discrete, straight_through(z_e, z_q), continuous),
        z_q=z_q,
        projection=projection,
        indices=indices,
        discrete=discrete,
        gain=gain(stop_gradient(z_e), stop_gradient(z_q)),
    )


def latent_from_codes(indices: jax.Array, codebook: jax.Array, gains: jax.Array | None = None) -> jax.Array:
    """`[..., D]` for the decoder from `indices` `[...]`: the codes themselves, or each times its gain `[...]`."""
    codes = codebook[indices]
    return codes if gains is None else gains[..., None] * codes
