"""Drawing latents from a prior, one position at a time in raster order, and the codes of a position one by one."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hvq_jax.errors import ArgumentError
from hvq_jax.minimum import min_and_argmin
from hvq_jax.options import Options, option
from hvq_jax.priors.filtering import Filter, make_filter
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.prior import Nats, Prior


@dataclasses.dataclass(frozen=True)
class CodeSamplingOptions(Options):
    """Options of drawing codes; they change nothing where codes are given."""

    temperature: float = option(1.0, "temperature of codes; 0: the most probable", low=0, changeable=True)
    top_k: int = option(0, "draw codes from the k most probable; 0: off", low=0, changeable=True)
    top_p: float = option(
        1.0, "draw codes from the most probable with this mass; 1: off", low=0, high=1, changeable=True
    )
    guidance: float = option(
        0.0,
        "w of classifier-free guidance of codes (Ho and Salimans, arXiv:2207.12598): (1 + w) times the logits of the "
        "class minus w times those of no class; 0: off",
        low=0,
        high=1e6,
        changeable=True,
    )

    def __post_init__(self) -> None:
        """Check the options beyond their ranges."""
        super().__post_init__()
        if not self.top_p:
            raise ArgumentError(f"top_p={self.top_p}", "must be above 0 and at most 1")

    def check(self, num_classes: int) -> None:
        """Raise ArgumentError for guidance of an unconditional prior."""
        if self.guidance and not num_classes:
            raise ArgumentError(f"guidance={self.guidance}", "needs a prior that is conditional on the class")


@dataclasses.dataclass(frozen=True)
class SamplingOptions(CodeSamplingOptions):
    """Options of drawing from a prior; the defaults draw from its unmodified distribution."""

    continuous_temperature: float = option(
        1.0, "temperature of bins, and of the variance of residuals; 0: the most probable", low=0, changeable=True
    )

    def controls(self) -> "Controls":
        """Return the options as a compiled program takes them."""
        return Controls(
            make_filter(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p),
            (np.float32(1 + self.guidance), np.float32(self.guidance)) if self.guidance else None,
            self.continuous_temperature,
        )


@struct.dataclass
class Controls:
    """`SamplingOptions` in a compiled program: of codes, what is off is None, and the numbers may be traced.

    So a program serves all options that are on and off alike, and have the same temperature of continuous parts.
    """

    filter: Filter
    guidance: tuple[ArrayLike, ArrayLike] | None  # 1 + w and w, float32
    continuous_temperature: float = struct.field(pytree_node=False)


DEFAULT_OPTIONS = SamplingOptions()


@struct.dataclass
class Kept:
    """Parts of a latent that are given instead of drawn."""

    tokens: jax.Array  # [B, h, w, L + c] int32
    codes: jax.Array  # [h, w] bool, where the codes are kept, all of a position
    continuous: jax.Array  # [h, w] bool, where the continuous part is; only where the code is kept too


def top_rows(tokens: ArrayLike, rows: int) -> Kept:
    """Keep the first rows of latents, to complete them.

    >>> top_rows(jnp.zeros((1, 3, 2, 1), int), rows=1).codes.tolist()
    [[True, True], [False, False], [False, False]]
    """
    tokens = jnp.asarray(tokens)
    kept = jnp.broadcast_to((jnp.arange(tokens.shape[1], dtype=jnp.int32) < rows)[:, None], tokens.shape[1:3])
    return Kept(tokens, kept, kept)


def all_codes(tokens: ArrayLike) -> Kept:
    """Keep the codes of latents, to vary their continuous parts.

    >>> kept = all_codes(jnp.zeros((1, 1, 2, 2), int))
    >>> kept.codes.tolist(), kept.continuous.tolist()
    ([[True, True]], [[False, False]])
    """
    tokens = jnp.asarray(tokens)
    everywhere = jnp.ones(tokens.shape[1:3], bool)
    return Kept(tokens, everywhere, ~everywhere)


@struct.dataclass
class DrawnLatents:
    """Latents and their nats under the prior."""

    tokens: jax.Array  # [B, h, w, L + c] int32
    nats: Nats  # [B, h, w], of what was drawn or kept, under the prior's unmodified distribution for any options


def sample(
    prior: Prior,
    variables: Any,
    labels: ArrayLike | None,
    keys: jax.Array,
    height: int,
    width: int,
    *,
    has_continuous: ArrayLike | None = None,
    options: SamplingOptions | Controls = DEFAULT_OPTIONS,
    kept: Kept | None = None,
) -> DrawnLatents:
    """Draw a latent for each key, computing every feature of the network once.

    Position i (in raster order) of latent b is drawn with `fold_in(keys[b], i)`. So, up to rounding of the features, a
    latent depends on its own key and not on the batch it is drawn in.

    >>> from hvq_jax.priors.pixelcnn import PixelCNN
    >>> prior = Prior(num_codes=5, network=PixelCNN(width=4, num_layers=1))
    >>> variables = jax.jit(prior.init)(jax.random.key(0), jnp.zeros((1, 2, 3, 1), int))
    >>> sample(prior, variables, None, jax.random.split(jax.random.key(1), 7), 2, 3).tokens.shape
    (7, 2, 3, 1)

    Args:
        prior: the model.
        variables: {"params": ...} of `prior`.
        labels: [B] int32 in [0, num_classes), or None where the prior is unconditional.
        keys: [B] PRNG keys.
        height: h, rows of the latent.
        width: w, columns of the latent.
        has_continuous: [P, K] bool, which codes have each continuous part; not needed for plain codes.
        options: fixed under jit, where their `controls()` may be traced.
        kept: what is given instead of drawn, if anything.

    Raises:
        ArgumentError: labels are missing from a conditional prior or given to an unconditional one.
    """
    labels = None if labels is None else jnp.asarray(labels)
    has_continuous = None if has_continuous is None else jnp.asarray(has_continuous)
    controls = _checked(options, prior)
    call: Callable[..., Any] = functools.partial(prior.apply, variables)
    batch = keys.shape[0]  # not `len`, which has to be known: an exported program draws any number
    kept = kept or _nothing(prior, batch, height, width)
    everyone = _with_no_class(labels) if controls.guidance else labels

    def draw_position(memory: Any, position: Any) -> tuple[Any, DrawnLatents]:
        column, noise, keys, given = position
        memory, features = call(memory, column, method="next_features")
        drawn = _draw(prior, call, features, noise, keys, given, has_continuous, controls)
        embedded = jnp.concatenate([drawn.tokens] * 2) if controls.guidance else drawn.tokens
        return call(memory, embedded, has_continuous, column, method="remember"), drawn

    def draw_row(memory: Any, row: Any) -> tuple[Any, DrawnLatents]:
        positions, given = row
        memory = call(memory, everyone, method="begin_row")
        noise, continuous_keys = _randomness(keys, positions, prior)
        return jax.lax.scan(draw_position, memory, (columns, noise, continuous_keys, given))

    memory = prior.network.blank_memory(batch * (2 if controls.guidance else 1), height, width)
    columns = jnp.arange(width, dtype=jnp.int32)
    positions = jnp.arange(height * width, dtype=jnp.int32).reshape(height, width)
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
    has_continuous: jax.Array | None = None,
    options: SamplingOptions = DEFAULT_OPTIONS,
    kept: Kept | None = None,
) -> DrawnLatents:
    """Draw what `sample` draws for the same arguments, with a full pass of the network per position; for tests.

    A draw differs only where the best two codes or bins tie up to rounding of the features.

    >>> from hvq_jax.priors.pixelcnn import PixelCNN
    >>> prior = Prior(num_codes=5, network=PixelCNN(width=4, num_layers=1))
    >>> variables = jax.jit(prior.init)(jax.random.key(0), jnp.zeros((1, 2, 3, 1), int))
    >>> arguments = prior, variables, None, jax.random.split(jax.random.key(1), 7), 2, 3
    >>> jnp.array_equal(sample_naive(*arguments).tokens, sample(*arguments).tokens).item()
    True
    """
    controls = _checked(options, prior)
    call: Callable[..., Any] = functools.partial(prior.apply, variables)
    kept = kept or _nothing(prior, len(keys), height, width)
    everyone = _with_no_class(labels) if controls.guidance else labels

    def draw(position: jax.Array, drawn: DrawnLatents) -> DrawnLatents:
        row, column = position // width, position % width
        seen = jnp.concatenate([drawn.tokens] * 2) if controls.guidance else drawn.tokens
        features = call(seen, everyone, has_continuous, method="features")[:, row, column]
        noise, continuous_keys = jax.tree.map(lambda x: x[0], _randomness(keys, position[None], prior))
        given = Kept(kept.tokens[:, row, column], kept.codes[row, column], kept.continuous[row, column])
        here = _draw(prior, call, features, noise, continuous_keys, given, has_continuous, controls)
        return jax.tree.map(lambda whole, part: whole.at[:, row, column].set(part), drawn, here)

    nothing, count = jnp.zeros((len(keys), height, width), jnp.float32), prior.codes_per_position
    nats = Nats(nothing, nothing, jnp.stack([nothing] * count, axis=-1) if count > 1 else None)
    return jax.lax.fori_loop(0, height * width, draw, DrawnLatents(jnp.zeros_like(kept.tokens), nats))


def _checked(options: SamplingOptions | Controls, prior: Prior) -> Controls:
    if isinstance(options, Controls):
        return options
    options.check(prior.num_classes)
    return options.controls()


def _draw(
    prior: Prior,
    call: Callable[..., Any],
    features: jax.Array,
    noise: tuple[jax.Array, ...],
    keys: jax.Array,
    given: Kept,
    has_continuous: jax.Array | None,
    controls: Controls,
) -> DrawnLatents:
    """Draw one position: tokens `[B, L + c]` and nats `[B]` from features `[B, width]`, 2B under guidance."""
    context, codes = features, given.tokens[:, :0]
    for level, noise_of_code in enumerate(noise):
        if level:
            latest = jnp.concatenate([codes[:, -1]] * 2) if controls.guidance else codes[:, -1]
            context = call(context, latest, level - 1, method="next_context")
        logits = call(context, level, method="code_logits")
        if controls.guidance:
            (more, less), (with_class, without) = controls.guidance, jnp.split(logits, 2)
            logits = more * with_class - less * without
        code = min_and_argmin(-(controls.filter(logits) + noise_of_code))[1]
        code = jnp.where(given.codes, given.tokens[:, level], code)
        codes = jnp.concatenate([codes, code[:, None]], axis=-1)
    features = features[: codes.shape[0]]  # of the class
    tokens = call(features, codes, has_continuous, keys, controls.continuous_temperature, method="draw_continuous")
    tokens = jnp.where(given.continuous, given.tokens, tokens)
    return DrawnLatents(tokens, call(features, tokens, has_continuous, method="nats"))


def _nothing(prior: Prior, batch: int, height: int, width: int) -> Kept:
    nowhere = jnp.zeros((height, width), bool)
    return Kept(jnp.zeros((batch, height, width, prior.num_channels), jnp.int32), nowhere, nowhere)


def _with_no_class(labels: jax.Array | None) -> jax.Array | None:
    """Return `[2B]`: the labels, then NO_CLASS for each of them."""
    if labels is None:  # the network raises an error
        return None
    return jnp.concatenate([labels, jnp.full_like(labels, NO_CLASS)])


def _randomness(keys: jax.Array, positions: jax.Array, prior: Prior) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Return Gumbel noise for a row, `[w, B, K]` for each code of a position, and keys `[w, B]` for continuous parts.

    `categorical` draws the code where the sum of noise and logits is largest. The noise is drawn one row at a time:
    fused with a position's argmax, XLA on CPU would recompute it in scalar code.
    """

    def of_position(position: jax.Array, key: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
        own = jax.random.fold_in(key, position)
        of_codes = [own, *(jax.random.fold_in(own, 1 + level) for level in range(1, prior.codes_per_position))]
        noise = tuple(jax.random.gumbel(of_code, (prior.num_codes,), jnp.float32) for of_code in of_codes)
        return noise, jax.random.fold_in(own, 1)

    return jax.vmap(jax.vmap(of_position, in_axes=(None, 0)), in_axes=(0, None))(positions, keys)
