"""Tokens: the transmitted integers of a hybrid latent, from which the decoder's input is reconstructed.

A position has the code and, where the decoder sees more than the code, the rest of it: the signed lengths ρ of a
projection, one per group of channels, or the residual z_e - e of z_e itself (`Parts`). Lengths are transmitted as bins
and residuals as multiples of a step (`Tables`). Tokens are `[..., 1 + c]` int32: the code, then g bins where a prior
covers lengths, then D multiples where it covers residuals; each is 0 where the code has no such part.

Of a quantizer with several codes per position (`Quantizer.index_shape`), tokens are the L codes in order, `[..., L]`;
there are no other parts.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hvq_jax.errors import ArgumentError
from hvq_jax.latents import PROJECTION, Z_E, Latent, scaled, signed_length, split_channels
from hvq_jax.priors.bins import fit_bins, from_bins, to_bins
from hvq_jax.priors.options import TokenOptions

LARGEST_MULTIPLE = 2**24  # of the step of residuals, either way: float32 holds every integer up to there


@struct.dataclass
class Parts:
    """A latent before rounding; lengths and residuals are given at all positions and count where the code has them."""

    indices: jax.Array | np.ndarray  # [...] int32, or [..., *index_shape] for several codes per position
    lengths: jax.Array | np.ndarray | None = None  # [..., g] float32, where the decoder sees projections
    residuals: jax.Array | np.ndarray | None = None  # [..., D] float32, where it sees z_e


@struct.dataclass
class Tables:
    """The tables that both sides know; made once, before the prior is trained, and stored with it."""

    has_length: jax.Array  # [K] bool, codes that are transmitted with lengths
    has_residual: jax.Array  # [K] bool, codes that are transmitted with a residual
    centroids: jax.Array | None = None  # [1, G] or [K·g, G] float32, of bins; None where no length is transmitted
    step: float = struct.field(pytree_node=False, default=0.0)  # of residuals; 0 where none is transmitted
    index_shape: tuple[int, ...] = struct.field(pytree_node=False, default=())  # of a position's codes

    def codes(self, indices: jax.Array) -> jax.Array:
        """Return `indices` `[..., *index_shape]` as `[..., L]`, with L = 1 for one code per position."""
        return indices.reshape(*indices.shape[: indices.ndim - len(self.index_shape)], -1)

    def indices(self, tokens: jax.Array) -> jax.Array:
        """Return the indices `[..., *index_shape]` of tokens `[..., L + c]`.

        >>> tables = Tables(jnp.zeros(9, bool), jnp.zeros(9, bool), index_shape=(2,))
        >>> tables.indices(jnp.array([[7, 8]])).tolist()
        [[7, 8]]
        """
        codes = tokens[..., : math.prod(self.index_shape)]
        return codes.reshape(*codes.shape[:-1], *self.index_shape)

    @property
    def has_bins(self) -> bool:
        """Whether tokens have bins; a single bin would carry no information."""
        return self.centroids is not None and self.centroids.shape[-1] > 1

    @property
    def has_continuous(self) -> jax.Array:
        """The codes that have each continuous part that tokens hold, lengths, then residuals: [P, K] bool."""
        masks = [self.has_length] * self.has_bins + [self.has_residual] * bool(self.step)
        return jnp.asarray(masks, bool).reshape(len(masks), len(self.has_length))


def split_latent(row: Latent, z_e: ArrayLike, z_q: ArrayLike, indices: ArrayLike, groups: int) -> Parts:
    """Return the parts of the latent `row` of z_e and z_q `[..., D]`, with `groups` lengths per position.

    >>> from hvq_jax.latents import LATENTS
    >>> z_e, z_q = jnp.array([[3.0, 4.0]]), jnp.array([[2.0, 0.0]])
    >>> split_latent(LATENTS["projected"], z_e, z_q, jnp.array([7]), groups=1).lengths.tolist()
    [[3.0]]
    """
    z_e, z_q, indices = jnp.asarray(z_e), jnp.asarray(z_q), jnp.asarray(indices)
    lengths = residuals = None
    if row.uses(PROJECTION):
        lengths = signed_length(split_channels(z_e, groups), split_channels(z_q, groups))
        lengths = lengths if groups > 1 else lengths[..., None]
    if row.uses(Z_E):
        residuals = z_e - z_q
    return Parts(indices, lengths, residuals)


def make_tables(
    row: Latent,
    frequent: np.ndarray,
    indices: np.ndarray,
    lengths: np.ndarray | None,
    options: TokenOptions,
    index_shape: tuple[int, ...] = (),
) -> Tables:
    """Return the tables of the latent `row`; deterministic, since bins are fitted without randomness.

    >>> from hvq_jax.latents import LATENTS
    >>> frequent, indices, lengths = np.array([True, False]), np.array([[0, 1]]), np.array([[[9.0], [3.0]]])
    >>> tables = make_tables(LATENTS["combined"], frequent, indices, lengths, TokenOptions(num_bins=1))
    >>> tables.has_length.tolist(), tables.centroids.tolist()
    ([False, True], [[3.0], [3.0]])

    Args:
        row: of `LATENTS`.
        frequent: [K] bool, the frozen choice of frequent codes.
        indices: [..., h, w, *index_shape] int, training latents to fit bins to.
        lengths: [..., h, w, g] float, their signed lengths; unused where the latent has none.
        options: the number of bins, and the step.
        index_shape: the shape of a position's codes.

    Raises:
        ArgumentError: a position has several codes, and something else too.
    """
    if index_shape and (row.uses(PROJECTION) or row.uses(Z_E)):
        raise ArgumentError(f"index_shape={index_shape}", "lengths and residuals need one code per position")
    has_length = np.asarray(row.codes_with(PROJECTION, jnp.asarray(frequent)))
    has_residual = np.asarray(row.codes_with(Z_E, jnp.asarray(frequent)))
    centroids = None
    if row.uses(PROJECTION):
        assert lengths is not None
        chosen = has_length[indices]
        centroids = fit_bins(
            lengths[chosen],
            indices[chosen],
            num_codes=len(has_length),
            num_bins=options.num_bins,
            per_code=options.bins_per_code,
        )
    return Tables(
        jnp.asarray(has_length),
        jnp.asarray(has_residual),
        None if centroids is None else jnp.asarray(centroids),
        options.residual_step if row.uses(Z_E) else 0.0,
        index_shape,
    )


def to_tokens(parts: Parts, tables: Tables) -> jax.Array:
    """Return tokens `[..., L + c]` int32 of `parts`.

    >>> has_length, has_residual = jnp.array([False, True]), jnp.array([False, False])
    >>> tables = Tables(has_length, has_residual, centroids=jnp.array([[1.0, 10.0]]))
    >>> to_tokens(Parts(jnp.array([0, 1]), lengths=jnp.array([[9.0], [9.0]])), tables).tolist()
    [[0, 0], [1, 1]]
    """
    indices = jnp.asarray(parts.indices)
    tokens = [tables.codes(indices)]
    if tables.has_bins:
        bins = to_bins(parts.lengths, indices, tables.centroids)
        tokens.append(jnp.where(tables.has_length[indices][..., None], bins, 0))
    if tables.step:
        assert parts.residuals is not None
        multiples = round_to_multiples(parts.residuals, tables.step)
        tokens.append(jnp.where(tables.has_residual[indices][..., None], multiples, 0))
    return jnp.concatenate(tokens, axis=-1)


def round_to_multiples(residuals: ArrayLike, step: float) -> jax.Array:
    """Return `residuals` `[...]` in multiples of `step`, `[...]` int32, at most LARGEST_MULTIPLE either way.

    >>> round_to_multiples(jnp.array([0.26, -1e9]), 0.1).tolist()
    [3, -16777216]
    """
    residuals = jnp.asarray(residuals)
    return jnp.clip(jnp.round(residuals / step), -LARGEST_MULTIPLE, LARGEST_MULTIPLE).astype(jnp.int32)


def check_residuals(tokens: np.ndarray, tables: Tables) -> None:
    """Raise ArgumentError if `tokens` `[..., 1 + c]` have a residual that may be beyond LARGEST_MULTIPLE.

    >>> tables = Tables(jnp.array([False]), jnp.array([True]), step=0.1)
    >>> check_residuals(np.array([0, 50_000]), tables)
    """
    if tables.step and np.abs(tokens[..., 1:]).max(initial=0) >= LARGEST_MULTIPLE:
        raise ArgumentError(
            f"prior.residual_step={tables.step:g}",
            f"residuals reach {LARGEST_MULTIPLE} steps, the most that are exact: train the prior with a larger step",
        )


def to_parts(tokens: ArrayLike, tables: Tables, groups: int = 1) -> Parts:
    """Return the parts that `tokens` `[..., L + c]` stand for, rounded; 0 where a code does not have them.

    >>> has_length, has_residual = jnp.array([False, True]), jnp.array([False, False])
    >>> tables = Tables(has_length, has_residual, centroids=jnp.array([[1.0, 10.0]]))
    >>> to_parts(jnp.array([[0, 0], [1, 1]]), tables).lengths.tolist()
    [[0.0], [10.0]]
    """
    tokens = jnp.asarray(tokens)
    indices, rest = tables.indices(tokens), tokens[..., math.prod(tables.index_shape) :]
    lengths = residuals = None
    if tables.centroids is not None:
        num_bins = groups if tables.has_bins else 0
        bins, rest = rest[..., :num_bins], rest[..., num_bins:]
        bins = bins if tables.has_bins else jnp.zeros((*indices.shape, groups), jnp.int32)
        centroids = from_bins(bins, indices, tables.centroids)
        lengths = jnp.where(tables.has_length[indices][..., None], centroids, 0.0)
    if tables.step:
        residuals = jnp.where(tables.has_residual[indices][..., None], tables.step * rest, 0.0)
    return Parts(indices, lengths, residuals)


def from_tokens(
    tokens: ArrayLike, tables: Tables, vectors: Callable[[jax.Array], jax.Array], groups: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Return the decoder's input `[..., D]`, and the gains in it: `[...]`, or `[..., g]` for g > 1 groups.

    Gains are 1 where the decoder does not see a multiple of the code.

    >>> tables = Tables(jnp.array([False, True]), jnp.array([False, False]), centroids=jnp.array([[1.0, 10.0]]))
    >>> codes = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> latents, gains = from_tokens(jnp.array([[0, 0], [1, 1]]), tables, lambda indices: codes[indices])
    >>> latents.tolist(), gains.tolist()
    ([[1.0, 0.0], [0.0, 10.0]], [1.0, 5.0])

    Args:
        tokens: [..., L + c] int32.
        tables: those that the tokens were made with.
        vectors: maps indices [..., *index_shape] to z_q [..., D], as `autoencoder.vectors` does for a trained model.
        groups: g.
    """
    tokens = jnp.asarray(tokens)
    parts = to_parts(tokens, tables, groups)
    z_q = vectors(jnp.asarray(parts.indices))
    gains = jnp.ones((*z_q.shape[:-1], groups), jnp.float32)
    if parts.lengths is not None:
        norms = jnp.linalg.norm(split_channels(z_q, groups).reshape(*gains.shape, -1), axis=-1)
        has_length = tables.has_length[parts.indices][..., None]
        gains = jnp.where(has_length, parts.lengths / jnp.maximum(norms, 1e-6), 1.0)
    gains = gains if groups > 1 else gains[..., 0]
    latents = scaled(z_q, gains)
    return latents if parts.residuals is None else latents + parts.residuals, gains
