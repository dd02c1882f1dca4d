"""The base of quantizers that give a position several codes, one from each of several codebooks of K codes.

ResidualQuantizer    codes that are summed: each is nearest to what the previous ones leave    `residual.py`
GroupedQuantizer     codes side by side: each is nearest to a group of channels                `grouped.py`
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import jax
import jax.numpy as jnp

from hvq_jax.quantizers.bottleneck import CodebookQuantizer, Params, QuantizerState, Step, require
from hvq_jax.quantizers.options import CodebookOptions, LatentOptions


@dataclasses.dataclass(frozen=True)
class SeveralCodebooks(ABC):
    """The latent `vq` with L codes per position: indices are `[..., L]`, and every array leads with an axis."""

    latent_options: LatentOptions
    codebook_options: CodebookOptions

    family: ClassVar[str]  # its name in `codebook.family`
    has_entropy_loss: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check that the options are compatible; raise ArgumentError."""
        require(f"codebook.family={self.family}", self.latent_options, mode="vq")

    @property
    @abstractmethod
    def index_shape(self) -> tuple[int, ...]:
        """The shape of the indices of one position, (L,)."""

    @property
    def num_codebooks(self) -> int:
        """The length of the axis that arrays lead with."""
        return self.index_shape[0]

    @property
    @abstractmethod
    def one(self) -> CodebookQuantizer:
        """The quantizer of one codebook."""

    def keys(self, key: jax.Array) -> jax.Array:
        """Return a key for each codebook; for a single one, `key` itself."""
        return key[None] if self.num_codebooks == 1 else jax.random.split(key, self.num_codebooks)

    @property
    def num_codes(self) -> int:
        """The number of codes per codebook, K."""
        return self.latent_options.num_codes

    @property
    def has_codebook_loss(self) -> bool:
        """Whether the learning rule of each codebook uses the codebook term of the loss."""
        return self.one.has_codebook_loss

    @property
    def has_commitment_loss(self) -> bool:
        """Whether encoder outputs are committed to their codes."""
        return self.one.has_commitment_loss

    def init(self, key: jax.Array) -> tuple[Params, QuantizerState]:
        """Return the codebooks, each from its own key."""
        return jax.vmap(self.one.init)(self.keys(key))

    @property
    def starts_from_data(self) -> bool:
        """Whether the codes of each codebook must be initialised before step 0."""
        return self.one.starts_from_data

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return the codes of all codebooks, `[L, K, D]` with the D of one codebook."""
        return self.one.codes(params, state)

    def entropy(
        self, z_e: jax.Array, step: Step, temperature: float, axis_name: str | None, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return 0; there is no such term."""
        del z_e, step, temperature, axis_name, mask
        return jnp.zeros((), jnp.float32)
