"""Filtering of a categorical distribution before sampling: temperature, top-k and top-p."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hvq_jax.errors import ArgumentError


def check_temperature(temperature: float) -> None:
    """Raise ArgumentError unless `temperature` is finite and at least 0.

    >>> check_temperature(-1.0)
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: temperature=-1.0: must be finite and at least 0 (greedy)
    """
    if not 0.0 <= temperature < float("inf"):
        raise ArgumentError(f"temperature={temperature}", "must be finite and at least 0 (greedy)")


def check_sampling_options(*, temperature: float, top_k: int, top_p: float) -> None:
    """Raise ArgumentError unless temperature is finite and >= 0, top_k >= 0 and 0 < top_p <= 1.

    >>> check_sampling_options(temperature=1.0, top_k=0, top_p=95)
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: top_p=95: must be above 0 and at most 1 (off)
    """
    check_temperature(temperature)
    if top_k < 0 or top_k % 1 != 0:
        raise ArgumentError(f"top_k={top_k}", "must be an integer, at least 0 (off)")
    if not 0.0 < top_p <= 1.0:
        raise ArgumentError(f"top_p={top_p}", "must be above 0 and at most 1 (off)")


@struct.dataclass
class Filter:
    """The options of `filter_logits` in a compiled program: what is off is None, and the numbers may be traced."""

    temperature: ArrayLike | None  # float32, above 0
    top_k: ArrayLike | None  # int32
    top_p: ArrayLike | None  # float32

    def __call__(self, logits: jax.Array) -> jax.Array:
        """Return the filtered logits `[..., K]` float32, -inf at the codes removed."""
        logits = logits.astype(jnp.float32)
        if self.temperature is None and self.top_k is None and self.top_p is None:
            return logits
        # Relative to the largest, so that a low temperature sends the others to -inf, and never the largest to inf.
        logits = logits - logits.max(axis=-1, keepdims=True)
        if self.temperature is not None:
            logits = logits / self.temperature
        if self.top_k is None and self.top_p is None:
            return logits

        most_probable_first = jnp.argsort(-logits, axis=-1, stable=True)
        rank = jnp.argsort(most_probable_first, axis=-1)
        if self.top_k is not None:
            logits = jnp.where(rank < self.top_k, logits, -jnp.inf)
        if self.top_p is not None:
            probabilities = jnp.take_along_axis(jax.nn.softmax(logits), most_probable_first, axis=-1)
            mass_before = jnp.cumsum(probabilities, axis=-1) - probabilities
            num_kept = (mass_before < self.top_p).sum(axis=-1, keepdims=True)
            logits = jnp.where(rank < num_kept, logits, -jnp.inf)
        return logits


def make_filter(*, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Filter:
    """Return a filter with the options of `filter_logits`; raise ArgumentError if one is out of range.

    >>> make_filter(top_k=1)(jnp.array([0.5, 1.0, 0.0])).tolist()
    [-inf, 0.0, -inf]
    """
    check_sampling_options(temperature=temperature, top_k=top_k, top_p=top_p)
    if min(temperature, top_p) < jnp.finfo(jnp.float32).tiny:  # zero, or zero in float32
        return Filter(None, np.int32(1), None)
    return Filter(
        None if temperature == 1 else np.float32(temperature),
        None if top_k == 0 else np.int32(min(top_k, np.iinfo(np.int32).max)),
        None if top_p == 1 else np.float32(top_p),
    )


def filter_logits(logits: jax.Array, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> jax.Array:
    """Filter a categorical distribution before sampling, by temperature, then top-k, then top-p.

    At least one code is always kept; of equally probable codes the lower index is kept first.

    >>> filter_logits(jnp.array([0.0, 3.0, 1.0]), top_k=2).tolist()
    [-inf, 0.0, -2.0]

    Args:
        logits: [..., K], float.
        temperature: divides the logits. 0 is the greedy limit: only the most probable code is kept.
        top_k: keep the top_k most probable codes; 0, or at least K, keeps all.
        top_p: keep the smallest set of most probable codes whose mass, measured after top-k, reaches
            top_p (nucleus sampling, Holtzman et al., arXiv:1904.09751); 1 keeps all.

    Returns:
        [..., K] float32 logits, -inf at the codes removed.

    Raises:
        ArgumentError: an option is out of range. The options are Python numbers, static under jit.
    """
    return make_filter(temperature=temperature, top_k=top_k, top_p=top_p)(logits)
