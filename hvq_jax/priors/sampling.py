"""Drawing latents from a prior, one position at a time in raster order."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.errors import UserError
from hvq_jax.priors.filtering import check_sampling_options, filter_logits
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.prior import Nats, Prior


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """How a prior is drawn from; the defaults draw from its very distribution."""

    temperature: float = 1.0  # of the codes; 0: the most probable
    top_k: int = 0  # of the codes; see `filter_logits`
    top_p: float = 1.0
    continuous_temperature: float = 1.0  # of bins; of the variance of residuals; 0: the most probable
    # w of classifier-free guidance (Ho and Salimans, arXiv:2207.12598) of the codes: (1 + w) times the logits of the
    # class less w times those of no class
    guidance: float = 0.0

    def check(self, num_classes: int) -> None:
        """Raises UserError for an option out of range."""
        check_sampling_options(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        if not 0 <= self.continuous_temperature < float("inf"):
            raise UserError(
                f"continuous_temperature is {self.continuous_temperature}; it must be finite and at least 0 (greedy)"
            )
        if not 0 <= self.guidance < float("inf"):
            raise UserError(f"guidance is {self.guidance}; it must be finite and at least 0 (off)")
        if self.guidance and not num_classes:
            raise UserError(f"guidance is {self.guidance}; it needs a prior that is conditional on the class")

    def filtered(self, logits: jax.Array) -> jax.Array:
        """Logits `[..., K]` of codes as they are drawn from."""
        return filter_logits(logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


DEFAULT_OPTIONS = SamplingOptions()


@struct.dataclass
class Kept:
    """Parts of a latent that are not drawn but given."""

    tokens: jax.Array  # [B, h, w, 1 + c] int32
    codes: jax.Array  # [h, w] bool, where the code is kept
    continuous: jax.Array  # [h, w] bool, where the continuous part is; only where the code is kept too


def top_rows(tokens: jax.Array, rows: int) -> Kept:
    """Keeps the first rows of latents, to complete them."""
    kept = jnp.broadcast_to((jnp.arange(tokens.shape[1]) < rows)[:, None], tokens.shape[1:3])
    return Kept(tokens, kept, kept)


def all_codes(tokens: jax.Array) -> Kept:
    """Keeps the codes of latents, to vary their continuous parts."""
    everywhere = jnp.ones(tokens.shape[1:3], bool)
    return Kept(tokens, everywhere, ~everywhere)


@struct.dataclass
class Drawn:
    """Latents, and what the prior says of them."""

    tokens: jax.Array  # [B, h, w, 1 + c] int32
    nats: Nats  # [B, h, w], of what was drawn or kept, by the prior's own distribution whatever the options


def sample(
    prior: Prior,
    variables: Any,
    labels: jax.Array | None,
    keys: jax.Array,
    height: int,
    width: int,
    *,
    present: jax.Array | None = None,
    options: SamplingOptions = DEFAULT_OPTIONS,
    kept: Kept | None = None,
) -> Drawn:
    """Draws a latent for each key, computing every feature of the network once.

    Position i (in raster order) of latent b is drawn with `fold_in(keys[b], i)`. So, to the rounding of the features, a
    latent depends on its own key and not on the batch it is drawn in.

    Args:
        prior: the model.
        variables: {"params": ...} of `prior`.
        labels: [B] int32 in [0, num_classes), or None where the prior is unconditional.
        keys: [B] PRNG keys.
        height: h, rows of the latent.
        width: w, columns of the latent.
        present: [K] bool, which codes have a continuous part; not needed for plain codes.
        options: fixed under jit.
        kept: what is given, if anything.

    Raises:
        UserError: an option is out of range; labels are missing from a conditional prior or given to an unconditional
            one.
    """
    options.check(prior.num_classes)
    call: Callable[..., Any] = functools.partial(prior.apply, variables)
    batch, kept = len(keys), kept or _nothing(prior, len(keys), height, width)
    everyone = _with_no_class(labels) if options.guidance else labels

    def draw_position(memory: Any, position: Any) -> tuple[Any, Drawn]:
        column, noise, keys, given = position
        memory, features = call(memory, column, method="next_features")
        drawn = _draw(prior, call, features, noise, keys, given, present, options)
        embedded = jnp.concatenate([drawn.tokens] * 2) if options.guidance else drawn.tokens
        return call(memory, embedded, present, column, method="remember"), drawn

    def draw_row(memory: Any, row: Any) -> tuple[Any, Drawn]:
        positions, given = row
        memory = call(memory, everyone, method="begin_row")
        noise, continuous_keys = _randomness(keys, positions, prior.num_codes)
        return jax.lax.scan(draw_position, memory, (jnp.arange(width), noise, continuous_keys, given))

    memory = prior.network.blank_memory(batch * (2 if options.guidance else 1), height, width)
    positions = jnp.arange(height * width).reshape(height, width)
    given = Kept(kept.tokens.transpose(1, 2, 0, 3), kept.codes, kept.continuous)
    _, drawn = jax.lax.scan(draw_row, memory, (positions, given))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), drawn)  # from [h, w, B, ...]


def sample_naive(
    prior: Prior,
    variables: Any,
    labels: jax.Array | None,
    keys: jax.Array,
    height: int,
    width: int,
    *,
    present: jax.Array | None = None,
    options: SamplingOptions = DEFAULT_OPTIONS,
    kept: Kept | None = None,
) -> Drawn:
    """What `sample` draws for the same arguments, by a full pass of the network for each position: to test it by.

    A draw differs only where the best two codes or bins tie to the rounding of the features.
    """
    options.check(prior.num_classes)
    call: Callable[..., Any] = functools.partial(prior.apply, variables)
    kept = kept or _nothing(prior, len(keys), height, width)
    everyone = _with_no_class(labels) if options.guidance else labels

    def draw(position: jax.Array, drawn: Drawn) -> Drawn:
        row, column = position // width, position % width
        seen = jnp.concatenate([drawn.tokens] * 2) if options.guidance else drawn.tokens
        features = call(seen, everyone, present, method="features")[:, row, column]
        noise, continuous_keys = _randomness(keys, position[None], prior.num_codes)
        given = Kept(kept.tokens[:, row, column], kept.codes[row, column], kept.continuous[row, column])
        here = _draw(prior, call, features, noise[0], continuous_keys[0], given, present, options)
        return jax.tree.map(lambda whole, part: whole.at[:, row, column].set(part), drawn, here)

    nothing = jnp.zeros((len(keys), height, width))
    return jax.lax.fori_loop(0, height * width, draw, Drawn(jnp.zeros_like(kept.tokens), Nats(nothing, nothing)))


def _draw(
    prior: Prior,
    call: Callable[..., Any],
    features: jax.Array,
    noise: jax.Array,
    keys: jax.Array,
    given: Kept,
    present: jax.Array | None,
    options: SamplingOptions,
) -> Drawn:
    """One position: tokens `[B, 1 + c]` and nats `[B]`, from features `[B, width]`, twice as many under guidance."""
    logits = call(features, method="code_logits")
    if options.guidance:
        with_class, without = jnp.split(logits, 2)
        logits = (1 + options.guidance) * with_class - options.guidance * without
        features = features[: len(with_class)]
    codes = jnp.argmax(options.filtered(logits) + noise, axis=-1).astype(jnp.int32)
    codes = jnp.where(given.codes, given.tokens[:, 0], codes)
    tokens = call(features, codes, present, keys, options.continuous_temperature, method="draw_continuous")
    tokens = jnp.where(given.continuous, given.tokens, tokens)
    return Drawn(tokens, call(features, tokens, present, method="nats"))


def _nothing(prior: Prior, batch: int, height: int, width: int) -> Kept:
    channels = 1 + (prior.continuous.channels if prior.continuous is not None else 0)
    nowhere = jnp.zeros((height, width), bool)
    return Kept(jnp.zeros((batch, height, width, channels), jnp.int32), nowhere, nowhere)


def _with_no_class(labels: jax.Array | None) -> jax.Array | None:
    """`[2B]`: the labels, and as many times no class."""
    if labels is None:  # which the network refuses
        return None
    return jnp.concatenate([labels, jnp.full_like(labels, NO_CLASS)])


def _randomness(keys: jax.Array, positions: jax.Array, num_codes: int) -> tuple[jax.Array, jax.Array]:
    """Gumbel noise `[w, B, K]` for the codes of a row, and keys `[w, B]` for the continuous parts.

    `categorical` draws the code where the sum of noise and logits is largest. A row at a time, because XLA on CPU would
    recompute it in scalar code if it were fused with a position's argmax.
    """

    def of_position(position: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = jax.random.fold_in(key, position)
        return jax.random.gumbel(own, (num_codes,)), jax.random.fold_in(own, 1)

    return jax.vmap(jax.vmap(of_position, in_axes=(None, 0)), in_axes=(0, None))(positions, keys)
