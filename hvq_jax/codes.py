"""The codes of a latent, and back: what has to be stored of it, and the decoder's input made from that.

    kept = hvq.codes_of(z_e, codes, mode="projected")
    z_bar = hvq.from_codes(kept.indices, codes, kept.gains, kept.residuals)

The modules (`hvq_jax.linen`, `hvq_jax.nnx`) have methods of the same names.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hvq_jax.errors import ArgumentError
from hvq_jax.latents import PROJECTION, Z_E, HybridLatent, Latent, Mode, find_latent, hybrid_latent, scaled
from hvq_jax.quantizers.assignment import Assignment, nearest_codes
from hvq_jax.sharding import any_sharding

PADDING = -1  # the index of a padded position


@struct.dataclass
class Codes:
    """What has to be stored of a latent."""

    indices: jax.Array  # [...] int32, or [..., L] for L codes per position; -1 where a position is padding
    gains: jax.Array | None  # [...], or [..., g] in g groups; 1 where it is the code; None: without gains
    residuals: jax.Array | None  # [..., D] float32, z_e - z_q where the decoder sees z_e, 0 elsewhere; None: nowhere


def stored(latent: HybridLatent, z_e: jax.Array, row: Latent) -> Codes:
    """Return the codes of `latent`, made from `z_e` `[..., D]` by the row `row` of `LATENTS`.

    >>> from hvq_jax.latents import LATENTS, plain_latent
    >>> z_e = jnp.array([[0.3, 0.4]])
    >>> stored(plain_latent(z_e, z_e, jnp.array([7]), z_e), z_e, LATENTS["vq"]).gains is None
    True
    """
    gains = residuals = None
    if row.uses(PROJECTION):
        gains = latent.gain_seen
    if row.uses(Z_E):
        itself = ~(latent.discrete | latent.projected)
        residuals = jax.lax.stop_gradient(jnp.where(itself, z_e - latent.z_q, 0.0))
    return Codes(latent.indices, gains, residuals)


@any_sharding
def codes_of(
    z_e: ArrayLike,
    codes: ArrayLike,
    *,
    mode: Mode,
    frequent: ArrayLike | None = None,
    assignment: Assignment = "euclidean",
    projection_groups: int = 1,
) -> Codes:
    """Return the codes of `z_e` under the latent `mode`.

    >>> codes_of([[3.0, 4.0]], jnp.array([[2.0, 0.0], [9.0, 9.0]]), mode="projected").gains.tolist()
    [1.5]

    Args:
        z_e: [..., D] float, the encoder's output.
        codes: [K, D] float32.
        mode: a name in `LATENTS`.
        frequent: [K] bool, the frequent codes; needed where `mode` has a mask.
        assignment: the rule by which codes are assigned.
        projection_groups: the gains per position.

    Raises:
        ArgumentError: an argument does not fit the others.
    """
    z_e = jnp.asarray(z_e, jnp.float32)
    indices = nearest_codes(z_e, codes, assignment)
    latent = hybrid_latent(z_e, codes, indices, frequent, mode=mode, projection_groups=projection_groups)
    return stored(latent, z_e, find_latent(mode))


@any_sharding
def from_codes(
    indices: ArrayLike, codes: ArrayLike, gains: ArrayLike | None = None, residuals: ArrayLike | None = None
) -> jax.Array:
    """Return the decoder's input `[..., D]` float32: gain · code + residual, and 0 where an index is -1.

    >>> from_codes([1, 0, -1], jnp.array([[1.0], [2.0]]), gains=[3.0, 4.0, 1.0]).tolist()
    [[6.0], [4.0], [0.0]]

    Args:
        indices: [...] integer, from 0 to K - 1, or -1 for padding. Known values are checked, traced ones cannot be.
        codes: [K, D] float32.
        gains: [...] or, in g groups, [..., g] float; None: 1.
        residuals: [..., D] float; None: 0.

    Raises:
        ArgumentError: an index is out of range, or a shape does not fit.
    """
    indices, codes = checked_indices(indices, np.shape(codes)[0]), jnp.asarray(codes)
    return decoder_input(codes[indices], indices, gains, residuals)


def checked_indices(indices: ArrayLike, num_codes: int, index_shape: tuple[int, ...] = ()) -> jax.Array:
    """Return `indices` as an array; raise ArgumentError if they are no indices of `num_codes` codes, nor padding.

    >>> checked_indices([0, 8], num_codes=8)
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: indices: must be from 0 to 7 (or -1 for padding), and reach from 0 to 8
    """
    known = None if isinstance(indices, jax.core.Tracer) else np.asarray(indices)
    array = jnp.asarray(indices)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ArgumentError("indices", f"must be integers, not {array.dtype}")
    if index_shape and array.shape[-len(index_shape) :] != index_shape:
        expected = ", ".join(["...", *map(str, index_shape)])
        raise ArgumentError("indices", f"must have the shape [{expected}], not {list(array.shape)}")
    if known is not None and known.size and (known.min() < PADDING or known.max() >= num_codes):
        raise ArgumentError(
            "indices",
            f"must be from 0 to {num_codes - 1} (or {PADDING} for padding), and reach from {known.min()} to "
            f"{known.max()}",
        )
    return array


def decoder_input(
    vectors: jax.Array,
    indices: jax.Array,
    gains: ArrayLike | None,
    residuals: ArrayLike | None,
    index_shape: tuple[int, ...] = (),
) -> jax.Array:
    """Return gain · vector + residual, `[..., D]`, and 0 where an index is -1; raise ArgumentError for other shapes.

    >>> decoder_input(jnp.array([[2.0, 2.0]]), jnp.array([0]), None, [[0.5, 0.0]]).tolist()
    [[2.5, 2.0]]
    """
    shape, result = vectors.shape[:-1], vectors
    if gains is not None:
        gains = jnp.asarray(gains, jnp.float32)
        groups = gains.shape[-1] if gains.ndim > len(shape) else 1
        if gains.shape not in (shape, (*shape, groups)) or vectors.shape[-1] % groups:
            raise ArgumentError("gains", f"have the shape {list(gains.shape)}, and the indices {list(shape)}")
        result = scaled(result, gains)
    if residuals is not None:
        residuals = jnp.asarray(residuals, jnp.float32)
        if residuals.shape != vectors.shape:
            raise ArgumentError("residuals", f"must have the shape {list(vectors.shape)}, not {list(residuals.shape)}")
        result = result + residuals
    padded = indices == PADDING
    padded = jnp.any(padded, axis=tuple(range(-len(index_shape), 0))) if index_shape else padded
    return jnp.where(padded[..., None], 0.0, result)
