"""Quantization to bits: z_e becomes L numbers, each replaced by its sign; no codebook, whatever 2^L is.

    lfq    z = down(z_e), code sign(z)                     Yu et al., MAGVIT-v2, 2023 (arXiv:2310.05737, section 3.1)
    bsq    u = down(z_e) / |down(z_e)|, code sign(u)/√L    Zhao et al., 2024 (arXiv:2406.07548, section 4)

The sign of 0 is −1, as in the papers. No array has an axis of 2^L besides those that count codes.

The entropy term is E[H(p)] − H(E[p]), p = softmax(−|z − code|² / temperature) over the 2^L codes. The distance is a sum
over bits, so that p is a product over bits, p_i = σ(4 |code_i| z_i / temperature) for a 1, and H(p) is the sum of the
entropies of the bits, exactly. E[p] is no product. H(E[p]) is replaced by the sum of the entropies of groups of bits:

    lfq    groups of 9 bits: exact up to 512 codes, and an upper bound for more
    bsq    groups of one bit: the paper's approximation (equation 8), an upper bound

The temperature of `bsq` is 2/τ in the paper's τ.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier, stop_gradient

from hvq_jax import latents
from hvq_jax.losses import entropy_term
from hvq_jax.quantizers.assignment import code_costs
from hvq_jax.quantizers.bottleneck import Params, QuantizerState, Step
from hvq_jax.quantizers.codebook_free import CodebookFreeQuantizer, linear


def bits_to_indices(bits: jax.Array) -> jax.Array:
    """Return the indices `[...]` int32, Σ 2^i b_i, of `bits` `[..., L]` bool.

    >>> bits_to_indices(jnp.array([[False, False], [True, False], [True, True]])).tolist()
    [0, 1, 3]
    """
    powers = jnp.left_shift(1, jnp.arange(bits.shape[-1], dtype=jnp.int32))
    return jnp.sum(bits * powers, axis=-1, dtype=jnp.int32)


def indices_to_bits(indices: jax.Array, num_bits: int) -> jax.Array:
    """Return the bits `[..., L]` bool of `indices` `[...]`: the inverse of `bits_to_indices`.

    >>> indices_to_bits(jnp.array([0, 1, 3]), 2).tolist()
    [[False, False], [True, False], [True, True]]
    """
    return jnp.right_shift(indices[..., None], jnp.arange(num_bits, dtype=jnp.int32)) & 1 > 0


@dataclasses.dataclass(frozen=True)
class LookupFreeQuantizer(CodebookFreeQuantizer):
    """The latent `vq` with the codes up(±1, …, ±1), L = `codebook.bits`."""

    family: ClassVar[str] = "lfq"
    option_names: ClassVar[tuple[str, ...]] = ("bits",)
    has_commitment_loss: ClassVar[bool] = True  # of the numbers to their signs
    has_entropy_loss: ClassVar[bool] = True
    entropy_bits: ClassVar[int] = 9  # the bits whose joint entropy H(E[p]) is exact

    @property
    def num_numbers(self) -> int:
        """L, the number of bits."""
        return self.codebook_options.bits

    @property
    def num_codes(self) -> int:
        """K, 2^L."""
        return 2**self.num_numbers

    @property
    def scale(self) -> float:
        """The size of each number of a code."""
        return 1.0

    def numbers(self, params: Params, z_e: jax.Array) -> jax.Array:
        """Return the numbers `[..., L]`, without bounds."""
        return linear(params["down"], z_e)

    def round(self, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the nearest code `[..., L]`, with the gradient of `numbers`, and its index `[...]` (eq. 3, 4)."""
        bits = stop_gradient(numbers) > 0
        return latents.straight_through(numbers, self._code(bits)), bits_to_indices(bits)

    def _code(self, bits: jax.Array) -> jax.Array:
        return jnp.where(bits, jnp.float32(self.scale), -jnp.float32(self.scale))

    def up(self, params: Params, rounded: jax.Array) -> jax.Array:
        """Return the decoder's input `[..., D]` of codes `[..., L]`."""
        return linear(params["up"], rounded)

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return the decoder's input for each combination of bits, `[K, D]`: as large as it sounds."""
        return self.vectors(params, state, jnp.arange(self.num_codes, dtype=jnp.int32))

    def vectors(self, params: Params, state: QuantizerState, indices: jax.Array) -> jax.Array:
        """Return the decoder's input `[..., D]` of `indices` `[...]`, the same bits for any number of indices.

        A sum in a fixed order of rows, added or subtracted, which are exact: the sum of a matrix product would depend
        on its size.
        """
        del state
        rows = optimization_barrier(self._code(jnp.array(True)) * params["up"]["kernel"])
        total = jnp.broadcast_to(params["up"]["bias"], (*indices.shape, rows.shape[-1]))
        bits = indices_to_bits(indices, self.num_numbers)
        for i, row in enumerate(rows):
            total = total + jnp.where(bits[..., i, None], row, -row)
        return total

    def entropy(
        self, z_e: jax.Array, step: Step, temperature: float, axis_name: str | None, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return the sum over groups of bits of their entropy term."""
        del z_e
        assert step.numbers is not None
        total = jnp.zeros((), jnp.float32)
        for first in range(0, self.num_numbers, self.entropy_bits):
            group = step.numbers[..., first : first + self.entropy_bits]
            corners = jnp.arange(2 ** group.shape[-1], dtype=jnp.int32)
            codes = self._code(indices_to_bits(corners, group.shape[-1]))
            total += entropy_term(code_costs(group, codes), temperature, axis_name, mask)
        return total


@dataclasses.dataclass(frozen=True)
class SphericalQuantizer(LookupFreeQuantizer):
    """The same on the unit sphere: numbers and codes have length 1."""

    family: ClassVar[str] = "bsq"
    entropy_bits: ClassVar[int] = 1

    @property
    def scale(self) -> float:
        """1/√L."""
        return 1 / math.sqrt(self.num_numbers)

    def numbers(self, params: Params, z_e: jax.Array) -> jax.Array:
        """Return the numbers `[..., L]`, as a vector of length 1."""
        return latents.unit(linear(params["down"], z_e))
