"""Residual finite scalar quantization: what rounding leaves of each number is rounded again, in finer steps.

The first of L levels is that of `scalar.py`, with integers. What it leaves lies in [−1/2, 1/2], and a number with l
choices is rounded to one of l points from −1/2 to 1/2, which are 1/(l − 1) apart. Each further level divides the steps
by l − 1 again, as in lucidrains/vector-quantize-pytorch (`residual_fsq.py`). But here numbers are bounded once, before
the first level, and not in each: so every level leaves at most 1/(l − 1) of what the previous one may leave.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from hvq_jax import latents
from hvq_jax.errors import ArgumentError
from hvq_jax.quantizers.bottleneck import Params, QuantizerState
from hvq_jax.quantizers.residual import sum_of_codes
from hvq_jax.quantizers.scalar import Levels, ScalarQuantizer, digits_of_all, halves, index_of_digits, integers


def finer_numbers(digits: jax.Array, levels: Levels, depth: int) -> jax.Array:
    """Return the numbers `[..., d]` float32 of `digits` `[..., d]` at the level `depth`, from 1.

    >>> finer_numbers(jnp.array([[0], [1], [2]]), (3,), 1).tolist(), finer_numbers(jnp.array([[2]]), (3,), 2).tolist()
    ([[-0.5], [0.0], [0.5]], [[0.25]])
    """
    sizes = jnp.array(levels, jnp.float32)
    return (digits - (sizes - 1) / 2) / _parts(levels, depth)


def finer_digits(rest: jax.Array, levels: Levels, depth: int) -> jax.Array:
    """Return the digits `[..., d]` int32 of the points at the level `depth`, from 1, that are nearest to `rest`.

    >>> finer_digits(jnp.array([[-0.5], [0.1], [0.5]]), (3,), 1).tolist()
    [[0], [1], [2]]
    """
    sizes = jnp.array(levels, jnp.float32)
    digits = jnp.round(rest * _parts(levels, depth) + (sizes - 1) / 2)
    return jnp.clip(digits, 0, sizes - 1).astype(jnp.int32)


def _parts(levels: Levels, depth: int) -> jax.Array:
    return jnp.array([float((level - 1) ** depth) for level in levels], jnp.float32)


@dataclasses.dataclass(frozen=True)
class ResidualScalarQuantizer(ScalarQuantizer):
    """L = `codebook.depth` levels of K = Π `codebook.levels` codes: indices are `[..., L]`, and codes `[L, K, D]`."""

    family: ClassVar[str] = "residual_fsq"
    option_names: ClassVar[tuple[str, ...]] = ("levels", "depth")

    def __post_init__(self) -> None:
        """Check that the options are compatible; raise ArgumentError."""
        super().__post_init__()
        if self.codebook_options.depth == 1:
            raise ArgumentError("codebook.depth=1", "codebook.family=residual_fsq needs from 2 to 4 levels")
        if min(self.codebook_options.levels) == 2:
            raise ArgumentError(
                f"codebook.levels={self.codebook_options.levels}",
                "must be at least 3 each for codebook.family=residual_fsq: with 2, steps do not become finer",
            )

    @property
    def index_shape(self) -> tuple[int, ...]:
        """L codes per position."""
        return (self.codebook_options.depth,)

    def round(self, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the sum of the points of all levels, with the gradient of `numbers`, and their indices `[..., L]`."""
        levels = self.codebook_options.levels
        total = jnp.round(stop_gradient(numbers))
        indices = [index_of_digits(total.astype(jnp.int32) + halves(levels), levels)]
        for depth in range(1, self.codebook_options.depth):
            digits = finer_digits(stop_gradient(numbers) - total, levels, depth)
            total += finer_numbers(digits, levels, depth)
            indices.append(index_of_digits(digits, levels))
        return latents.straight_through(numbers, total), jnp.stack(indices, axis=-1)

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return the codes of all levels, `[L, K, D]`, whose sum is the decoder's input; the first have the bias."""
        del state
        levels = self.codebook_options.levels
        finer = {"up": {**params["up"], "bias": jnp.zeros_like(params["up"]["bias"])}}
        depths = range(1, self.codebook_options.depth)
        others = [self.up(finer, finer_numbers(digits_of_all(levels), levels, depth)) for depth in depths]
        return jnp.stack([self.up(params, integers(levels)), *others])

    def vectors(self, params: Params, state: QuantizerState, indices: jax.Array) -> jax.Array:
        """Return the sums `[..., D]` of the codes of `indices` `[..., L]`."""
        return sum_of_codes(indices, self.codes(params, state))
