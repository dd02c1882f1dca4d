"""Drawing latents from an autoregressive prior, one position at a time in raster order."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hvq_jax.errors import UserError
from hvq_jax.priors.pixelcnn import Memory, PixelCNN


def check_sampling_options(*, temperature: float, top_k: int, top_p: float) -> None:
    """Raise UserError unless temperature >= 0 and finite, top_k >= 0 and 0 < top_p <= 1."""
    if not 0.0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}; it must be finite and at least 0 (greedy)")
    if top_k < 0 or top_k % 1 != 0:
        raise UserError(f"top_k is {top_k}; it must be a whole number, at least 0 (off)")
    if not 0.0 < top_p <= 1.0:
        raise UserError(f"top_p is {top_p}; it must be above 0 and at most 1 (off)")


def filter_logits(logits: jax.Array, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> jax.Array:
    """Reshape a categorical distribution before a draw: temperature first, then top-k, then top-p.

    At least one code is always kept; of equally probable codes the lower index is kept first.

    Args:
        logits: [..., K], float.
        temperature: divides the logits. 0 is its limit: only the most probable code is kept.
        top_k: keep the top_k most probable codes; 0, or K and more, keeps all.
        top_p: keep the smallest set of most probable codes whose mass reaches top_p, measured
            after top-k (nucleus sampling, Holtzman et al., arXiv:1904.09751); 1 keeps all.

    Returns:
        [..., K] float32 logits; -inf at the codes removed.

    Raises:
        UserError: an option is out of range. The options are Python numbers, fixed under jit.
    """
    check_sampling_options(temperature=temperature, top_k=top_k, top_p=top_p)
    if temperature < jnp.finfo(jnp.float32).tiny:  # zero, or zero once it is a float32
        temperature, top_k = 1.0, 1
    logits = logits.astype(jnp.float32)
    if temperature == 1 and top_k == 0 and top_p == 1:
        return logits
    # Relative to the largest, so that a low temperature drives the others to -inf, never it to inf.
    logits = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    if top_k == 0 and top_p == 1:
        return logits

    most_probable_first = jnp.argsort(-logits, axis=-1, stable=True)
    rank = jnp.argsort(most_probable_first, axis=-1)
    if top_k > 0:
        logits = jnp.where(rank < top_k, logits, -jnp.inf)
    if top_p < 1:
        probabilities = jnp.take_along_axis(jax.nn.softmax(logits), most_probable_first, axis=-1)
        mass_before = jnp.cumsum(probabilities, axis=-1) - probabilities
        num_kept = (mass_before < top_p).sum(axis=-1, keepdims=True)
        logits = jnp.where(rank < num_kept, logits, -jnp.inf)
    return logits


def sample_indices(
    logits_fn: Callable[[jax.Array], jax.Array],
    keys: jax.Array,
    height: int,
    width: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> jax.Array:
    """Draw a latent for each key, by a full pass of the model for each position.

    Position i (in raster order) of latent b is drawn with `fold_in(keys[b], i)`. So, to the
    rounding of `logits_fn`, a latent depends on its own key and not on the batch it is drawn in.

    Args:
        logits_fn: maps indices [B, h, w] int32 to logits [B, h, w, K], those at a position
            depending only on the indices before it; binds parameters and labels.
        keys: [B] PRNG keys.
        height: h, rows of the latent.
        width: w, columns of the latent.
        temperature: see `filter_logits`, as for top_k and top_p.
        top_k: see there.
        top_p: see there.

    Returns:
        [B, h, w] int32 indices.

    Raises:
        UserError: an option is out of range.
    """
    check_sampling_options(temperature=temperature, top_k=top_k, top_p=top_p)

    def draw(position: jax.Array, indices: jax.Array) -> jax.Array:
        row, column = position // width, position % width
        logits = filter_logits(logits_fn(indices)[:, row, column], temperature=temperature, top_k=top_k, top_p=top_p)
        position_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, position)
        codes = jax.vmap(jax.random.categorical)(position_keys, logits)
        return indices.at[:, row, column].set(codes)

    blank = jnp.zeros((keys.shape[0], height, width), jnp.int32)
    return jax.lax.fori_loop(0, height * width, draw, blank)


def sample_cached(
    model: PixelCNN,
    variables: Any,
    labels: jax.Array | None,
    keys: jax.Array,
    height: int,
    width: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> jax.Array:
    """Draw what `sample_indices` draws for the same keys, computing every feature of the model once.

    Time grows with the number of positions, not with its square. Logits equal those of a full pass to rounding, so a
    draw differs only where the best two codes tie to that rounding.

    Args:
        model: the prior.
        variables: {"params": ...} of `model`.
        labels: [B] int32 in [0, num_classes), or None where the model is unconditional.
        keys: see `sample_indices`, as for the rest.
        height: h, rows of the latent.
        width: w, columns of the latent.
        temperature: see `filter_logits`, as for top_k and top_p.
        top_k: see there.
        top_p: see there.

    Returns:
        [B, h, w] int32 indices.

    Raises:
        UserError: an option is out of range; labels are missing from a conditional model or given to an unconditional
            one.
    """
    check_sampling_options(temperature=temperature, top_k=top_k, top_p=top_p)
    call: Callable[..., Any] = functools.partial(model.apply, variables)

    def draw_position(columns: Memory, row: tuple[Any, jax.Array]) -> tuple[Memory, jax.Array]:
        contexts, noise = row
        inputs, logits = call(columns, contexts, method="next_column")
        logits = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        codes = jnp.argmax(logits + noise, axis=-1)
        return call(codes, inputs, method="remember"), codes

    def draw_row(rows: Memory, positions: jax.Array) -> tuple[Memory, jax.Array]:
        inputs, contexts = call(rows, labels, method="begin_row")
        contexts = jax.tree.map(lambda context: context.swapaxes(0, 1), contexts)  # the scan goes over columns
        noise = _gumbel_noise(keys, positions, model.num_codes)
        _, codes = jax.lax.scan(draw_position, model.blank_memory(len(keys)), (contexts, noise))
        codes = codes.swapaxes(0, 1)
        return call(codes, inputs, method="remember"), codes

    positions = jnp.arange(height * width).reshape(height, width)
    _, indices = jax.lax.scan(draw_row, model.blank_memory(len(keys), width), positions)
    return indices.swapaxes(0, 1)


def _gumbel_noise(keys: jax.Array, positions: jax.Array, num_codes: int) -> jax.Array:
    """Return [w, B, K] noise; `categorical` draws the code where its sum with the logits is largest.

    A row at a time, because XLA on CPU would recompute it in scalar code if it were fused with a position's argmax.
    """

    def noise(position: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.gumbel(jax.random.fold_in(key, position), (num_codes,))

    return jax.vmap(jax.vmap(noise, in_axes=(None, 0)), in_axes=(0, None))(positions, keys)
