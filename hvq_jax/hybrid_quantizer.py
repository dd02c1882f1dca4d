"""A quantizer as a layer of any network: its options as keyword arguments, its loss, its state, its results.

What `hvq_jax.linen` and `hvq_jax.nnx` have in common: pure functions of `(params, state, z_e)`, where z_e is the
network's output, `[..., D]` of any rank. Positions where `mask` `[...]` is False are padding. They are neither counted
nor learned from, no code is moved onto them, the loss leaves them out, and their index is -1 and their latent 0.
"""

import dataclasses
import functools
import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
from flax import serialization, struct
from jax.lax import stop_gradient
from jax.typing import ArrayLike

from hvq_jax.codes import PADDING, Codes, checked_indices, decoder_input, stored
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import PROJECTION, Z_E, HybridLatent, Latent, find_latent
from hvq_jax.losses import LossOptions, latent_losses, masked_mean, total_loss
from hvq_jax.metrics import perplexity, share_used
from hvq_jax.options import Options, option
from hvq_jax.quantizers import (
    CodebookOptions,
    LatentOptions,
    Quantizer,
    check_options,
    codebook,
    make_quantizer,
    weights_in_effect,
)
from hvq_jax.quantizers.bottleneck import QuantizerState
from hvq_jax.quantizers.codebook_free import linear
from hvq_jax.quantizers.initialisation import Initialisation
from hvq_jax.quantizers.options import CodebookMethod
from hvq_jax.sharding import any_sharding, any_sharding_in

T = TypeVar("T")
Arrays = dict[str, Any]  # nested dictionaries of arrays


@dataclasses.dataclass(frozen=True)
class LayerOptions(Options):
    """How a quantizer is joined to a network."""

    dim_in: int | None = option(
        None,
        "channels of z_e; learned linear maps lead to the D of the codes and back; None: D, without maps",
        low=1,
    )
    axis_name: str | None = option(
        None, "axis of pmap, shard_map or vmap that a batch is split over; None: each call has all of the batch"
    )


SECTIONS = (LatentOptions, CodebookOptions, LossOptions, LayerOptions)
_RENAMED = {"init": "codebook_init"}  # `init` is a method of modules

if TYPE_CHECKING:

    @dataclasses.dataclass(frozen=True)
    class HybridQuantizerOptions(LatentOptions, CodebookMethod, LossOptions, LayerOptions):
        """All options of a quantizer as keyword arguments."""

        codebook_init: Initialisation = "data"

else:
    # The fields of all sections, so that an option is declared once; not frozen, because modules are not.
    HybridQuantizerOptions = dataclasses.make_dataclass(
        "HybridQuantizerOptions",
        [
            (_RENAMED.get(field.name, field.name), field.type, option(field.default, **vars(field.metadata["rule"])))
            for section in SECTIONS
            for field in dataclasses.fields(section)
        ],
        kw_only=True,
        eq=False,
        repr=False,
        namespace={"__doc__": "All options of a quantizer as keyword arguments.", "__module__": __name__},
    )


def with_options_described(module: type[T]) -> type[T]:
    """Return the class `module`, with its keyword arguments in its docstring."""
    options = [f"{field.name}: {field.metadata['rule'].help}" for field in dataclasses.fields(HybridQuantizerOptions)]
    lines = [textwrap.fill(line, 120, initial_indent=" " * 8, subsequent_indent=" " * 12) for line in options]
    module.__doc__ = "\n".join([f"{module.__doc__}\n    Args:", *lines, "    "])
    return module


@struct.dataclass
class LatentLosses:
    """The unweighted terms of the loss: float32 scalars, means over all positions that are not padding."""

    codebook: jax.Array  # |z_q - sg z_e|²; 0 weight where no code is learned by gradient
    commitment: jax.Array  # |z_e - sg t|²
    projection: jax.Array  # |P - sg z_q|², where the decoder sees P
    entropy: jax.Array  # E[H(p)] - H(E[p]) in nats; 0 without training or weight


@struct.dataclass
class CodebookMetrics:
    """How the codes are used in a batch; over the devices of `axis_name`."""

    counts: jax.Array  # [K], or [L, K], int32, assignments; add them up over batches for the metrics of a data set
    perplexity: jax.Array  # [] float32, the effective number of codes in use
    share_used: jax.Array  # [] float32, of codes that are used at all
    share_outside: jax.Array  # [] float32, of positions where the decoder does not see the plain code
    revived: jax.Array  # [] int32, codes that were moved onto encoder outputs


@struct.dataclass
class Quantized:
    """The result of a quantizer in a network."""

    z_bar: jax.Array  # [..., D] in the dtype of z_e, what the decoder sees; 0 at padding
    loss: jax.Array  # [] float32, the weighted terms; to be added to the loss of the reconstruction
    indices: jax.Array  # [...] int32, or [..., L] for L codes per position; -1 at padding
    gains: jax.Array | None  # [...], or [..., g], float32; 1 where it is the code; None: without gains
    residuals: jax.Array | None  # [..., D] float32, z_e - z_q where the decoder sees z_e; None: nowhere
    losses: LatentLosses
    metrics: CodebookMetrics


@struct.dataclass
class LayerState:
    """The arrays that a training step updates without gradients."""

    steps: jax.Array  # [] int32, training steps
    quantizer: QuantizerState
    start: Any  # what the first batch adds to the initial parameters of codes that start from data, or {}


def make_layer(module: HybridQuantizerOptions) -> "Layer":
    """Return the layer of a module with these options; raise ArgumentError, with the option's name."""
    values = {name: getattr(module, name) for name in _NAMES}
    return _make_layer(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


_NAMES = tuple(field.name for field in dataclasses.fields(HybridQuantizerOptions))


@functools.lru_cache(maxsize=256)
def _make_layer(**values: Any) -> "Layer":
    def part(section: Any) -> Any:
        names = [field.name for field in dataclasses.fields(section)]
        return section(**{name: values[_RENAMED.get(name, name)] for name in names})

    try:
        latent, method, loss, layer = map(part, SECTIONS)
        check_options(latent, method, loss)
        quantizer = make_quantizer(latent, method)
    except ArgumentError as error:
        raise ArgumentError(_keyword(error.argument), _keyword(error.problem)) from None
    return Layer(quantizer, latent, weights_in_effect(loss, quantizer), layer.dim_in, layer.axis_name)


def _keyword(text: str) -> str:
    """Return an error's text with the keyword arguments for the names of options in a config."""
    text = re.sub(r"\b(?:latent|codebook|loss)\.(?=[a-z_]+\b)", "", text)
    return re.sub(r"\binit(?==)", "codebook_init", text)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A quantizer in a network: pure functions of its arrays."""

    quantizer: Quantizer
    latent_options: LatentOptions
    loss: LossOptions  # the weights in effect
    dim_in: int | None
    axis_name: str | None

    @property
    def row(self) -> Latent:
        """The row of `latents.LATENTS` that says what the decoder sees."""
        return find_latent(self.latent_options.mode)

    def init(self, key: jax.Array) -> tuple[Arrays, Arrays]:
        """Return fresh params and state."""
        key, inner, outer = jax.random.split(key, 3)
        params, quantizer_state = self.quantizer.init(key)
        start = jax.tree.map(jnp.zeros_like, params) if self.quantizer.starts_from_data else {}
        state = _to_dict(LayerState(jnp.zeros((), jnp.int32), quantizer_state, start))
        if self.dim_in is not None:
            sizes = (self.dim_in, self.latent_options.dim)
            params = {**params, "project_in": _new_map(inner, *sizes), "project_out": _new_map(outer, *sizes[::-1])}
        return params, state

    @functools.cached_property
    def shapes(self) -> tuple[Arrays, Arrays]:
        """The shapes and dtypes of params and state."""
        shapes: tuple[Arrays, Arrays] = jax.eval_shape(self.init, jax.random.key(0))
        return shapes

    @property
    def num_channels(self) -> int:
        """The channels of z_e, and of the result."""
        return self.latent_options.dim if self.dim_in is None else self.dim_in

    def check(self, z_e: ArrayLike, mask: ArrayLike | None) -> tuple[jax.Array, jax.Array | None]:
        """Return z_e and mask as arrays; raise ArgumentError if they do not fit."""
        z_e = jnp.asarray(z_e)
        if not jnp.issubdtype(z_e.dtype, jnp.floating):
            raise ArgumentError("z_e", f"must be floating-point numbers, not {z_e.dtype}")
        if not z_e.ndim or z_e.shape[-1] != self.num_channels:
            name = "dim" if self.dim_in is None else "dim_in"
            last = f"{z_e.shape[-1]} channels" if z_e.ndim else "no channels"
            raise ArgumentError(
                f"{name}={self.num_channels}",
                f"z_e, of shape {list(z_e.shape)}, has {last}: choose dim equal to them, or dim_in for learned maps "
                "between them and codes of another dim",
            )
        if mask is None:
            return z_e, None
        mask = jnp.asarray(mask)
        if mask.shape != z_e.shape[:-1] or mask.dtype != bool:
            raise ArgumentError(
                "mask",
                f"must be bool of the shape {list(z_e.shape[:-1])}, that of z_e without its channels, and is "
                f"{mask.dtype} of the shape {list(mask.shape)}",
            )
        return z_e, mask

    def train(
        self, params: Arrays, state: Arrays, z_e: jax.Array, mask: jax.Array | None, key: jax.Array
    ) -> tuple[Quantized, Arrays]:
        """Return the result of a training step, and the state after it; `key` draws codes from the batch."""
        return _train(self, params, state, z_e, mask, key)

    def quantize(self, params: Arrays, state: Arrays, z_e: jax.Array, mask: jax.Array | None) -> Quantized:
        """Return the result from the current codes; update nothing."""
        return _quantize(self, params, state, z_e, mask)

    def codes_of(self, params: Arrays, state: Arrays, z_e: ArrayLike, mask: ArrayLike | None) -> Codes:
        """Return the codes of z_e `[..., D]`."""
        quantized = self.quantize(params, state, *self.check(z_e, mask))
        return Codes(quantized.indices, quantized.gains, quantized.residuals)

    def from_codes(
        self,
        params: Arrays,
        state: Arrays,
        indices: ArrayLike,
        gains: ArrayLike | None,
        residuals: ArrayLike | None,
    ) -> jax.Array:
        """Return the decoder's input `[..., D]` float32 of codes."""
        for name, given, part in (("gains", gains, PROJECTION), ("residuals", residuals, Z_E)):
            if given is not None and not self.row.uses(part):
                raise ArgumentError(name, f"mode={self.latent_options.mode} has none")
        indices = checked_indices(indices, self.quantizer.num_codes, self.quantizer.index_shape)
        return _from_codes(self, params, state, indices, gains, residuals)

    def codes(self, params: Arrays, state: Arrays) -> jax.Array:
        """Return the code of each index, `[K, D]`, or `[L, K, D]`."""
        learned, _, stored_state = self.split(params, state)
        return self.quantizer.codes(learned, stored_state.quantizer)

    def split(self, params: Arrays, state: Arrays) -> tuple[Arrays, Arrays, LayerState]:
        """Return the quantizer's params as they are used, the other params, and the state."""
        made = self._state(state)
        maps = {name: value for name, value in params.items() if name in _MAPS}
        learned = {name: value for name, value in params.items() if name not in _MAPS}
        return (_moved(learned, made.start) if made.start else learned), maps, made

    def _state(self, state: Arrays) -> LayerState:
        """Return the state in these dictionaries."""
        template = jax.eval_shape(self.quantizer.init, jax.random.key(0))[1]
        names = serialization.to_state_dict(template)
        quantizer_state = serialization.from_state_dict(template, {name: state.get(name) for name in names})
        return LayerState(state["steps"], quantizer_state, state.get("start", {}))

    def begin(
        self, learned: Arrays, state: LayerState, z_e: jax.Array, mask: jax.Array | None, key: jax.Array
    ) -> LayerState:
        """Return the state after the codes have started from data, if this is the first step and they do."""
        if not self.quantizer.starts_from_data:
            return state

        def start() -> LayerState:
            params, quantizer_state = self.quantizer.start_from_data(
                learned, state.quantizer, z_e, key, self.axis_name, mask
            )
            moves = jax.tree.map(jnp.subtract, params, learned) if state.start else state.start
            return LayerState(state.steps, quantizer_state, stop_gradient(moves))

        return jax.lax.cond(state.steps == 0, start, lambda: state)

    def result(
        self,
        maps: Arrays,
        z_e: jax.Array,
        latent: HybridLatent,
        counts: jax.Array,
        mask: jax.Array | None,
        entropy: jax.Array,
        revived: jax.Array,
    ) -> Quantized:
        """Return the result for the vectors `z_e` that were quantized as `latent`."""
        mean: Callable[[jax.Array], jax.Array] = functools.partial(masked_mean, mask=mask, axis_name=self.axis_name)
        terms = latent_losses(z_e, latent, mean, commitment_target=self.loss.commitment_target)
        outside = mean(1.0 - latent.discrete.astype(jnp.float32))
        kept = stored(latent, z_e, self.row)
        indices, z_bar = kept.indices, latent.z_bar
        z_bar = linear(maps["project_out"], z_bar) if maps else z_bar
        if mask is not None:
            z_bar = jnp.where(mask[..., None], z_bar, 0.0)
            indices = jnp.where(_over(mask, indices), indices, PADDING)
        return Quantized(
            z_bar=z_bar,
            loss=total_loss(terms, self.loss) + self.loss.entropy_weight * entropy,
            indices=indices,
            gains=kept.gains,
            residuals=kept.residuals,
            losses=LatentLosses(terms.codebook, terms.commitment, terms.projection, entropy),
            metrics=CodebookMetrics(
                counts=counts,
                perplexity=perplexity(counts),
                share_used=share_used(counts),
                share_outside=jax.lax.pmean(outside, self.axis_name) if self.axis_name else outside,
                revived=jnp.sum(revived, dtype=jnp.int32),
            ),
        )


_MAPS = ("project_in", "project_out")


def _new_map(key: jax.Array, size_in: int, size_out: int) -> Arrays:
    kernel = jax.nn.initializers.lecun_normal()(key, (size_in, size_out), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(size_out, jnp.float32)}


def _moved(params: Arrays, moves: Arrays) -> Arrays:
    return jax.tree.map(jnp.add, params, stop_gradient(moves))


def _to_dict(state: LayerState) -> Arrays:
    """Return a state as nested dictionaries, as frameworks store it; parts without arrays are left out."""
    parts = {"steps": state.steps, "start": state.start, **serialization.to_state_dict(state.quantizer)}
    return {name: part for name, part in parts.items() if jax.tree.leaves(part)}


def _over(mask: jax.Array, values: jax.Array) -> jax.Array:
    """Return `mask` `[...]` with trailing axes of size 1, to be used with `values` `[..., *]`."""
    return mask.reshape(*mask.shape, *[1] * (values.ndim - mask.ndim))


def _inputs(layer: Layer, maps: Arrays, z_e: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the vectors `[..., dim]` to quantize; those of padding, which may be NaN, are 0 before anything else."""
    z_e = z_e.astype(jnp.float32)
    z_e = z_e if mask is None else jnp.where(mask[..., None], z_e, 0.0)
    return layer.quantizer.normalise(linear(maps["project_in"], z_e) if maps else z_e)


def _same_everywhere(key: jax.Array, axis_name: str | None) -> jax.Array:
    """Return the first device's key on all of them: those of dropout may differ, but codes must stay equal."""
    if axis_name is None:
        return key
    data = jax.random.key_data(key)
    data = jax.lax.psum(jnp.where(jax.lax.axis_index(axis_name) == 0, data, 0), axis_name)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key)) if typed else data


def _per_position(quantized: Quantized) -> Any:
    return quantized.z_bar, quantized.indices, quantized.gains, quantized.residuals


@any_sharding_in(lambda result: _per_position(result[0]))
def _train(
    layer: Layer, params: Arrays, state: Arrays, z_e: jax.Array, mask: jax.Array | None, key: jax.Array
) -> tuple[Quantized, Arrays]:
    start_key, step_key = jax.random.split(_same_everywhere(key, layer.axis_name))
    _, maps, before = layer.split(params, state)
    vectors = _inputs(layer, maps, z_e, mask)
    fresh = {name: value for name, value in params.items() if name not in _MAPS}
    started = layer.begin(stop_gradient(fresh), before, stop_gradient(vectors), mask, start_key)
    learned = _moved(fresh, started.start) if started.start else fresh
    latent, step = layer.quantizer.step(learned, started.quantizer, vectors, step_key, layer.axis_name, mask)
    entropy = jnp.zeros((), jnp.float32)
    if layer.loss.entropy_weight:
        entropy = layer.quantizer.entropy(vectors, step, layer.loss.entropy_temperature, layer.axis_name, mask)
    quantized = layer.result(maps, vectors, latent, step.counts, mask, entropy, step.revived)
    done = 1 if mask is None else codebook.anywhere(mask, layer.axis_name).astype(jnp.int32)
    after = LayerState(before.steps + done, step.state, started.start)
    return dataclasses.replace(quantized, z_bar=quantized.z_bar.astype(z_e.dtype)), _to_dict(after)


@any_sharding_in(_per_position)
def _quantize(layer: Layer, params: Arrays, state: Arrays, z_e: jax.Array, mask: jax.Array | None) -> Quantized:
    learned, maps, made = layer.split(params, state)
    vectors = _inputs(layer, maps, z_e, mask)
    latent = layer.quantizer.quantize(learned, made.quantizer, vectors)
    counts = _count(layer, latent.indices, mask)
    zero = jnp.zeros((), jnp.float32)
    quantized = layer.result(maps, vectors, latent, counts, mask, zero, zero)
    return dataclasses.replace(quantized, z_bar=quantized.z_bar.astype(z_e.dtype))


def _count(layer: Layer, indices: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the assignments of each code, `[K]` int32, or `[L, K]` for L codes per position."""
    num_codes = layer.quantizer.num_codes
    if mask is not None:
        indices = codebook.unassigned_where(~_over(mask, indices), indices, num_codes)

    def count(indices: jax.Array) -> jax.Array:
        return codebook.count_assignments(indices, num_codes, layer.axis_name)

    return jax.vmap(count, -1)(indices) if layer.quantizer.index_shape else count(indices)


@any_sharding
def _from_codes(
    layer: Layer,
    params: Arrays,
    state: Arrays,
    indices: jax.Array,
    gains: ArrayLike | None,
    residuals: ArrayLike | None,
) -> jax.Array:
    learned, maps, made = layer.split(params, state)
    index_shape: tuple[int, ...] = layer.quantizer.index_shape
    # Padding has some code until it is blanked.
    vectors = layer.quantizer.vectors(learned, made.quantizer, jnp.maximum(indices, 0))
    z_bar = decoder_input(vectors, indices, gains, residuals, index_shape)
    if not maps:
        return z_bar
    padded = indices == PADDING
    padded = jnp.any(padded, axis=-1) if index_shape else padded
    return jnp.where(padded[..., None], 0.0, linear(maps["project_out"], z_bar))
