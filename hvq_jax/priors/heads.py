"""Heads of a prior, which predict a position's codes and then its continuous parts from the network's features.

A continuous part is transmitted as c integers. `GainHead` predicts the bins of signed lengths, one per group of
channels, and `ResidualHead` a residual z_e − e_k in multiples of a step. Both give the exact probability of what is
transmitted: over all outcomes it sums to 1. A position without the part has zeros there, and the prior leaves out what
the head predicts for it.
"""

import math
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.fusion import materialised_on_cpu
from hvq_jax.networks.layers import CheckedModule, Dense, embedding_init
from hvq_jax.priors.cell_mass import log_cell_mass
from hvq_jax.priors.filtering import check_temperature, filter_logits
from hvq_jax.priors.tokens import round_to_multiples


class CodeHead(CheckedModule):
    """A head for the logits of a code: the only one of a position, or one of several."""

    num_codes: int
    head_width: int
    compute_dtype: str = "float32"  # of the dense layers; logits are float32, whatever it is

    def setup(self) -> None:
        """Define the parameters."""
        self.hidden = Dense(self.head_width, dtype=self.compute_dtype)
        self.logits = Dense(self.num_codes, dtype=self.compute_dtype, result_dtype="float32")

    def __call__(self, features: jax.Array) -> jax.Array:
        """Map features [..., width] to logits [..., K] float32."""
        hidden = nn.relu(self.hidden(features))
        # In sampling, a kernel for both products takes twice as long with so few rows.
        return self.logits(materialised_on_cpu(hidden))


class ContinuousHead(Protocol):
    """The methods of a head for a continuous part, c integers per position."""

    @property
    def channels(self) -> int:
        """The number of integers per position, c."""

    def log_probability(self, features: jax.Array, codes: jax.Array, continuous: jax.Array) -> jax.Array:
        """Return log p(continuous | features, code) in nats, for all positions in one pass.

        Args:
            features: [..., width] float32, of the positions before.
            codes: [...] int32, the positions' own.
            continuous: [..., c] int32.

        Returns:
            [...] float32.
        """

    def draw(
        self,
        features: jax.Array,
        codes: jax.Array,
        keys: jax.Array,
        *,
        temperature: float = 1.0,
    ) -> jax.Array:
        """Draw the continuous part of one position of each latent, with one key per latent.

        Args:
            features: [B, width] float32.
            codes: [B] int32.
            keys: [B] PRNG keys.
            temperature: 1 draws from the distribution; 0 is greedy. It is fixed under jit.

        Returns:
            [B, c] int32.

        Raises:
            ArgumentError: the temperature is below 0 or not finite.
        """

    def embed(self, continuous: jax.Array) -> jax.Array:
        """Map [..., c] int32 to [..., width] float32, to be added to the embedding of the code for later positions."""


class GainHead(CheckedModule):
    """A head for the signed lengths of g groups, each one of G bins, given the groups before it at its position.

    With G = 1 there is nothing to predict: it costs no nats, embeds as zero, and has no parameters.
    """

    num_codes: int
    num_bins: int
    groups: int
    width: int
    head_width: int
    compute_dtype: str = "float32"  # of the dense layers; logits are float32, whatever it is

    def setup(self) -> None:
        """Define the parameters; initially all bins are equally probable."""
        self.code_embedding = nn.Embed(self.num_codes, self.width, embedding_init=embedding_init)
        # Their sum over the groups is as large as the embedding of a code.
        bin_init = nn.initializers.normal(stddev=1 / math.sqrt(self.groups))
        self.bin_embedding = nn.Embed(self.groups * self.num_bins, self.width, embedding_init=bin_init)
        if self.groups > 1:
            self.group_embedding = nn.Embed(self.groups, self.width, embedding_init=embedding_init)
        self.hidden = Dense(self.head_width, dtype=self.compute_dtype)
        self.logits = Dense(
            self.num_bins, dtype=self.compute_dtype, result_dtype="float32", kernel_init=nn.initializers.zeros
        )

    @property
    def channels(self) -> int:
        """The number of groups, g."""
        return self.groups

    def bin_logits(self, features: jax.Array, codes: jax.Array, bins: jax.Array) -> jax.Array:
        """Return logits [..., g, G] float32, each group's given the `bins` [..., g] of the groups before it."""
        embedded = self._embed_bins(bins[..., :-1])
        before = jnp.cumsum(embedded, axis=-2)
        before = jnp.concatenate([jnp.zeros((*bins.shape[:-1], 1, self.width), jnp.float32), before], axis=-2)
        return self._logits((features + self.code_embedding(codes))[..., None, :] + before)

    def log_probability(self, features: jax.Array, codes: jax.Array, continuous: jax.Array) -> jax.Array:
        """See `ContinuousHead`; `continuous` are bins in [0, G)."""
        if self.num_bins == 1:
            return jnp.zeros(codes.shape, jnp.float32)
        log_probabilities = jax.nn.log_softmax(self.bin_logits(features, codes, continuous))
        return jnp.take_along_axis(log_probabilities, continuous[..., None], axis=-1).sum(axis=(-2, -1))

    def draw(
        self,
        features: jax.Array,
        codes: jax.Array,
        keys: jax.Array,
        *,
        temperature: float = 1.0,
    ) -> jax.Array:
        """See `ContinuousHead`; the temperature as in `filter_logits`, for each group in turn."""
        check_temperature(temperature)
        if self.num_bins == 1:
            return jnp.zeros((*codes.shape, self.groups), jnp.int32)
        context = features + self.code_embedding(codes)
        bins: list[jax.Array] = []
        for group in range(self.groups):
            logits = filter_logits(self._logits(context[:, None], group), temperature=temperature)
            group_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, group)
            bins.append(jax.vmap(jax.random.categorical)(group_keys, logits))
            context = context + self._embed_bins(bins[-1], group)[:, 0]
        return jnp.concatenate(bins, axis=-1).astype(jnp.int32)

    def embed(self, continuous: jax.Array) -> jax.Array:
        """See `ContinuousHead`; an embedding for each group and bin, summed over the groups."""
        if self.num_bins == 1:
            return jnp.zeros((*continuous.shape[:-1], self.width), jnp.float32)
        return self._embed_bins(continuous).sum(axis=-2)

    def _embed_bins(self, bins: jax.Array, first: int = 0) -> jax.Array:
        """Map bins [..., n] of n groups, starting at group `first`, to [..., n, width]."""
        return self.bin_embedding(bins + self.num_bins * (first + jnp.arange(bins.shape[-1], dtype=jnp.int32)))

    def _logits(self, contexts: jax.Array, first: int = 0) -> jax.Array:
        """Map contexts [..., n, width] of n groups, starting at group `first`, to logits [..., n, G]."""
        if self.groups > 1:
            contexts = contexts + self.group_embedding(first + jnp.arange(contexts.shape[-2], dtype=jnp.int32))
        return self.logits(nn.relu(self.hidden(contexts)))


class ResidualHead(CheckedModule):
    """A head for a residual of D channels, in multiples of `step`: a mixture of Gaussians with independent channels.

    The mixture is GIVT's (Tschannen et al., arXiv:2312.02116); but the probability of a residual is the mass of its
    cell, half a step to either side in every channel, where theirs is a density.
    """

    num_codes: int
    dim: int
    step: float
    num_components: int
    width: int
    head_width: int
    compute_dtype: str = "float32"  # of the dense layers; the mixture is float32, whatever it is
    initial_scale: float = 1.0  # about the standard deviation of residuals: means and scales are in units of it
    min_scale: float = 0.1  # a component's least standard deviation, in steps: it puts all but 1e-6 into one cell

    def setup(self) -> None:
        """Define the parameters."""
        self.code_embedding = nn.Embed(self.num_codes, self.width, embedding_init=embedding_init)
        self.hidden = Dense(self.head_width, dtype=self.compute_dtype)
        size = self.num_components * (1 + 2 * self.dim)
        self.mixture = Dense(size, dtype=self.compute_dtype, result_dtype="float32")
        self.residual_embedding = Dense(self.width, dtype=self.compute_dtype, result_dtype="float32")

    @property
    def channels(self) -> int:
        """The number of channels, D."""
        return self.dim

    def components(self, features: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the mixture: logits [..., M], means and standard deviations [..., M, D], all float32."""
        hidden = nn.relu(self.hidden(features + self.code_embedding(codes)))
        logits, rest = jnp.split(self.mixture(hidden), [self.num_components], axis=-1)
        means, scales = jnp.split(rest.reshape(*codes.shape, self.num_components, 2 * self.dim), 2, axis=-1)
        # Exponential while small, then linear: no step of the optimizer makes it overflow. 1 at the start.
        scales = nn.softplus(scales) / math.log(2)
        return logits, self.initial_scale * means, self.min_scale * self.step + self.initial_scale * scales

    def log_probability(self, features: jax.Array, codes: jax.Array, continuous: jax.Array) -> jax.Array:
        """See `ContinuousHead`; `continuous` are multiples of the step."""
        logits, means, scales = self.components(features, codes)
        offsets = self.step * continuous[..., None, :] - means
        return _mix(logits, log_cell_mass(offsets, scales, self.step))

    def log_density(self, features: jax.Array, codes: jax.Array, residuals: jax.Array) -> jax.Array:
        """Return log p [...] of real `residuals` [..., D] float32, per unit of volume.

        The limit of `log_probability` − D log(step) for small steps. Only a diagnostic: it cannot be added to bits.
        """
        logits, means, scales = self.components(features, codes)
        return _mix(logits, jax.scipy.stats.norm.logpdf(residuals[..., None, :], means, scales))

    def draw(
        self,
        features: jax.Array,
        codes: jax.Array,
        keys: jax.Array,
        *,
        temperature: float = 1.0,
    ) -> jax.Array:
        """See `ContinuousHead`; a component's variance is multiplied by the temperature (GIVT's variance scaling).

        Which component is drawn depends on the temperature at 0 only: it is then the most probable one, and the
        residual its mean.
        """
        check_temperature(temperature)
        logits, means, scales = self.components(features, codes)

        def draw_one(key: jax.Array, logits: jax.Array, means: jax.Array, scales: jax.Array) -> jax.Array:
            component_key, key = jax.random.split(key)
            component = jax.random.categorical(component_key, logits) if temperature > 0 else jnp.argmax(logits)
            noise = math.sqrt(temperature) * jax.random.normal(key, (self.dim,), jnp.float32)
            return means[component] + scales[component] * noise

        return round_to_multiples(jax.vmap(draw_one)(keys, logits, means, scales), self.step)

    def embed(self, continuous: jax.Array) -> jax.Array:
        """See `ContinuousHead`; a dense layer of the residual."""
        return self.residual_embedding(continuous * (self.step / self.initial_scale))


def _mix(logits: jax.Array, log_probabilities: jax.Array) -> jax.Array:
    """Return log p [...] under a mixture: its logits [..., M], and log p of each component's channels [..., M, D]."""
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + log_probabilities.sum(axis=-1), axis=-1)
