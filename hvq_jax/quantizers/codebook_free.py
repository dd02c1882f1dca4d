"""The base of quantizers without a codebook: z_e becomes a few numbers, and each of them is rounded.

Learned linear maps take the D channels of z_e to the d numbers ("down"), and these to the D channels of the decoder
("up"). The combinations of rounded numbers are numbered, so a prior over codes works here too.
"""

import dataclasses
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from hvq_jax import latents
from hvq_jax.latents import HybridLatent
from hvq_jax.quantizers import codebook
from hvq_jax.quantizers.bottleneck import Params, QuantizerState, Step, require
from hvq_jax.quantizers.options import CodebookOptions, LatentOptions


def linear(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Return x W + b, `[..., n]`, of `x` `[..., m]` and params "kernel" `[m, n]` and "bias" `[n]`.

    >>> linear({"kernel": jnp.array([[2.0], [3.0]]), "bias": jnp.array([1.0])}, jnp.array([1.0, 2.0])).tolist()
    [9.0]
    """
    return jnp.matmul(x, params["kernel"], precision=jax.lax.Precision.HIGHEST) + params["bias"]


@dataclasses.dataclass(frozen=True)
class CodebookFreeQuantizer(ABC):
    """The latent `vq` with the codes up(rounded numbers), `[K, D]`; `params` hold the maps "down" and "up"."""

    latent_options: LatentOptions
    codebook_options: CodebookOptions

    family: ClassVar[str]  # its name in `codebook.family`
    has_codebook_loss: ClassVar[bool] = False  # no codes are learned
    has_commitment_loss: ClassVar[bool] = False
    has_entropy_loss: ClassVar[bool] = False
    starts_from_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check that the options are compatible; raise ArgumentError."""
        require(f"codebook.family={self.family}", self.latent_options, mode="vq", estimator="straight_through")

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """The number of codes, K."""

    @property
    @abstractmethod
    def num_numbers(self) -> int:
        """The number of numbers that a vector becomes, d."""

    @property
    def index_shape(self) -> tuple[int, ...]:
        """One code per position."""
        return ()

    def init(self, key: jax.Array) -> tuple[Params, QuantizerState]:
        """Return Xavier-uniform maps with zero bias, as in the networks."""
        dim, size = self.latent_options.dim, self.num_numbers
        kernel = jax.nn.initializers.xavier_uniform()
        down, up = jax.random.split(key)
        params: dict[str, Any] = {
            "down": {"kernel": kernel(down, (dim, size), jnp.float32), "bias": jnp.zeros(size, jnp.float32)},
            "up": {"kernel": kernel(up, (size, dim), jnp.float32), "bias": jnp.zeros(dim, jnp.float32)},
        }
        return params, QuantizerState(jnp.zeros((*self.index_shape, self.num_codes), jnp.float32))

    def start_from_data(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Params, QuantizerState]:
        """Return the arrays unchanged."""
        del z_e, key, axis_name, mask
        return params, state

    def normalise(self, z_e: jax.Array) -> jax.Array:
        """Return z_e in float32."""
        return z_e.astype(jnp.float32)

    @abstractmethod
    def numbers(self, params: Params, z_e: jax.Array) -> jax.Array:
        """Return the numbers `[..., d]` of `z_e` `[..., D]` before they are rounded."""

    @abstractmethod
    def round(self, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the rounded `numbers` `[..., d]`, with a gradient, and their indices `[..., *index_shape]` int32."""

    @abstractmethod
    def up(self, params: Params, rounded: jax.Array) -> jax.Array:
        """Return the decoder's input `[..., D]` of rounded numbers `[..., d]`, differentiable in both."""

    @abstractmethod
    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return the decoder's input for each combination of rounded numbers, `[*index_shape, K, D]`."""

    def vectors(self, params: Params, state: QuantizerState, indices: jax.Array) -> jax.Array:
        """Return the decoder's input `[..., D]` of `indices` `[...]`."""
        return self.codes(params, state)[indices]

    def entropy(
        self, z_e: jax.Array, step: Step, temperature: float, axis_name: str | None, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return 0; there is no such term."""
        del z_e, step, temperature, axis_name, mask
        return jnp.zeros((), jnp.float32)

    def step(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[HybridLatent, Step]:
        """Update F; everything else is learned by gradient."""
        del key
        latent = self.quantize(params, state, z_e)
        counts = self._count(latent.indices, axis_name, mask)
        frequency = codebook.update_frequency(state.frequency, counts, self.latent_options.frequency_decay)
        if mask is not None:  # a batch that is all padding is no step
            frequency = jnp.where(codebook.anywhere(mask, axis_name), frequency, state.frequency)
        after = dataclasses.replace(state, frequency=frequency)
        return latent, Step(
            after, self.codes(params, state), latent.indices, counts, jnp.zeros((), bool), latent.numbers
        )

    def _count(self, indices: jax.Array, axis_name: str | None, mask: jax.Array | None) -> jax.Array:
        """Return the assignments of each code where `mask` is True, `[*index_shape, K]` int32."""
        if mask is not None:
            padded = ~mask.reshape(*mask.shape, *[1] * len(self.index_shape))
            indices = codebook.unassigned_where(padded, indices, self.num_codes)
        count = partial(codebook.count_assignments, num_codes=self.num_codes, axis_name=axis_name)
        return jax.vmap(count, -1)(indices) if self.index_shape else count(indices)

    def quantize(self, params: Params, state: QuantizerState, z_e: jax.Array) -> HybridLatent:
        """Return the latent; its value is that of `vectors`, so that decoding the indices gives the same bits."""
        numbers = self.numbers(params, z_e)
        rounded, indices = self.round(numbers)
        z_q = self.vectors(params, state, indices)
        latent = latents.plain_latent(z_e, z_q, indices, latents.straight_through(self.up(params, rounded), z_q))
        return dataclasses.replace(latent, numbers=numbers, rounded=rounded) if self.has_commitment_loss else latent
