"""Finite scalar quantization: z_e becomes a few numbers, each bounded and rounded to one of its levels; no codebook.

Mentzer et al., 2023 (arXiv:2309.15505). There are K = Π levels combinations; the maps are those of `codebook_free.py`.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from hvq_jax import latents
from hvq_jax.quantizers.bottleneck import Params, QuantizerState
from hvq_jax.quantizers.codebook_free import CodebookFreeQuantizer, linear

_MARGIN = 1e-3  # keeps tanh from ever rounding to one level too many

Levels = tuple[int, ...]


def bound(numbers: jax.Array, levels: Levels) -> jax.Array:
    """Bound `numbers` `[..., d]` so that each rounds to one of `level` integers, starting at −⌊level/2⌋.

    An even number of levels lies half an integer lower, and the input is shifted so that numbers near 0 stay there
    (the paper's appendix A.1). Two levels are divided at 0 instead: with the shift, -1.56 and more would be the upper.

    >>> bound(jnp.array([-9.0, 0.0, 9.0]), (3, 3, 3)).round().tolist()
    [-1.0, 0.0, 1.0]
    """
    sizes = jnp.array(levels, jnp.float32)
    half = (sizes - 1) * (1 - _MARGIN) / 2
    offset = jnp.where(sizes % 2 == 0, 0.5, 0.0)
    shift = jnp.where(sizes == 2, 0.0, jnp.tan(offset / half))
    return half * jnp.tanh(numbers + shift) - offset


def to_indices(numbers: jax.Array, levels: Levels) -> jax.Array:
    """Return the indices `[...]` int32, in 0 … K − 1, of integers `[..., d]`; the first integer changes fastest.

    >>> to_indices(jnp.array([[-1, -1], [0, -1], [1, 1]]), (3, 3)).tolist()
    [0, 1, 8]
    """
    return index_of_digits(numbers.astype(jnp.int32) + halves(levels), levels)


def index_of_digits(digits: jax.Array, levels: Levels) -> jax.Array:
    """Return the indices `[...]` int32 of digits `[..., d]` int32, each from 0 to its level − 1.

    >>> index_of_digits(jnp.array([[0, 0], [1, 0], [2, 2]]), (3, 3)).tolist()
    [0, 1, 8]
    """
    return jnp.sum(digits * jnp.array(_factors(levels), jnp.int32), axis=-1, dtype=jnp.int32)


def digits_of_all(levels: Levels) -> jax.Array:
    """Return the digits of every index, `[K, d]` int32: the inverse of `index_of_digits`.

    >>> digits_of_all((2, 2)).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    indices = jnp.arange(math.prod(levels), dtype=jnp.int32)[:, None]
    return indices // jnp.array(_factors(levels), jnp.int32) % jnp.array(levels, jnp.int32)


def integers(levels: Levels) -> jax.Array:
    """Return the integers of every index, `[K, d]` float32: the inverse of `to_indices`.

    >>> integers((2, 2)).tolist()
    [[-1.0, -1.0], [0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]]
    """
    return (digits_of_all(levels) - halves(levels)).astype(jnp.float32)


def _factors(levels: Levels) -> list[int]:
    return [math.prod(levels[:i]) for i in range(len(levels))]


def halves(levels: Levels) -> jax.Array:
    """Return ⌊level/2⌋ of each level, `[d]` int32, by which integers are divided to lie in [-1, 1].

    >>> halves((5, 4)).tolist()
    [2, 2]
    """
    return jnp.array([level // 2 for level in levels], jnp.int32)


def round_straight_through(numbers: jax.Array) -> jax.Array:
    """Round exactly in the forward pass; pass the gradient through unchanged.

    >>> round_straight_through(jnp.array(1.6)).item(), jax.grad(round_straight_through)(1.6).item()
    (2.0, 1.0)
    """
    return latents.straight_through(numbers, jnp.round(numbers))


@dataclasses.dataclass(frozen=True)
class ScalarQuantizer(CodebookFreeQuantizer):
    """The latent `vq` with the codes up(integers, scaled to [-1, 1])."""

    family: ClassVar[str] = "fsq"
    option_names: ClassVar[tuple[str, ...]] = ("levels",)

    @property
    def num_codes(self) -> int:
        """K, the product of the levels."""
        return math.prod(self.codebook_options.levels)

    @property
    def num_numbers(self) -> int:
        """One number per level in `codebook.levels`."""
        return len(self.codebook_options.levels)

    def numbers(self, params: Params, z_e: jax.Array) -> jax.Array:
        """Return the bounded numbers `[..., d]`."""
        return bound(linear(params["down"], z_e), self.codebook_options.levels)

    def round(self, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the nearest integers, with the gradient of `numbers`, and their indices `[...]`."""
        rounded = round_straight_through(numbers)
        return rounded, to_indices(stop_gradient(rounded), self.codebook_options.levels)

    def up(self, params: Params, rounded: jax.Array) -> jax.Array:
        """Return the decoder's input `[..., D]` of integers `[..., d]`, each scaled to [-1, 1] first."""
        return linear(params["up"], rounded / halves(self.codebook_options.levels))

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return the decoder's input for each combination of levels, `[K, D]`."""
        del state
        return self.up(params, integers(self.codebook_options.levels))
