"""Assignment of a code to each vector: a search over the codebook by one of three rules.

    euclidean     argmin_j |z_e - e_j|²            van den Oord et al., 2017
    cosine        argmax_j ⟨z_e, e_j⟩ / |e_j|      Yu et al., 2021 (arXiv:2110.04627)
    projection    argmax_j ⟨z_e, e_j⟩² / |e_j|²    the code on the nearest line; minimises |z_e - P(z_e, e_j)|²

Ties go to the lowest index. The search always uses float32 at the highest matmul precision, since a different choice
gives a different latent.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hvq_jax.errors import ArgumentError
from hvq_jax.latents import EPSILON, unit
from hvq_jax.minimum import min_and_argmin
from hvq_jax.registry import choose
from hvq_jax.sharding import any_sharding

# The cost to minimise, from ⟨z_e, e_j⟩ and each code's offset (`_searchable`). |z_e|² is constant and would only cost
# precision, so it is left out.
_COSTS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "euclidean": lambda inner, offsets: offsets - 2.0 * inner,
    "cosine": lambda inner, offsets: offsets - inner,
    "projection": lambda inner, offsets: offsets - jnp.square(inner),
}
ASSIGNMENTS = tuple(_COSTS)
Assignment = Literal["euclidean", "cosine", "projection"]


def most_costs() -> int:
    """Return the limit on the costs that the search has at once: 64 MiB of float32, for all of its arrays together.

    On CPU three arrays of them exist at a time (`minimum.py`), and what stays in the caches is searched faster.

    >>> most_costs() <= 64 * 2**20 / 4
    True
    """
    return 2**22 if jax.default_backend() == "cpu" else 2**24


@any_sharding
def nearest_codes(z_e: ArrayLike, codes: ArrayLike, assignment: Assignment = "euclidean") -> jax.Array:
    """Return the indices `[...]` int32 of the `codes` `[K, D]` assigned to `z_e` `[..., D]` by the rule `assignment`.

    Under "cosine" and "projection" a zero code, which has no direction, is never chosen unless all codes are zero. If
    the costs of all codes for all vectors are more than `most_costs`, they are never held in memory at once: the
    codes are searched in parts.

    >>> codes = jnp.array([[1.0, 0.5], [-5.0, 0.0]])
    >>> {rule: nearest_codes(jnp.array([1.0, 0.1]), codes, rule).item() for rule in ASSIGNMENTS}
    {'euclidean': 0, 'cosine': 0, 'projection': 1}
    """
    vectors, codes = _checked(z_e, codes)
    codes, offsets = _searchable(codes, assignment)
    size = max(most_costs() // max(math.prod(vectors.shape[:-1]), 1), 1)
    if len(codes) <= size:
        return _cheapest(vectors, codes, offsets, assignment)[1]
    missing = -len(codes) % size
    codes = jnp.pad(codes, ((0, missing), (0, 0))).reshape(-1, size, codes.shape[-1])
    offsets = jnp.pad(offsets, (0, missing), constant_values=jnp.inf).reshape(-1, size)

    def search(best: Any, part: Any) -> tuple[Any, None]:
        first, part_codes, part_offsets = part
        costs, indices = _cheapest(vectors, part_codes, part_offsets, assignment)
        cheaper = costs < best[1]  # strictly, so that of equal costs the lower index stays
        return (jnp.where(cheaper, first + indices, best[0]), jnp.where(cheaper, costs, best[1])), None

    none_yet = (jnp.zeros(vectors.shape[:-1], jnp.int32), jnp.full(vectors.shape[:-1], jnp.inf))
    first = size * jnp.arange(len(codes), dtype=jnp.int32)
    (indices, _), _ = jax.lax.scan(search, none_yet, (first, codes, offsets))
    return indices


@any_sharding
def code_costs(z_e: ArrayLike, codes: ArrayLike, assignment: Assignment = "euclidean") -> jax.Array:
    """Return the cost `[..., K]` float32 of each of `codes` `[K, D]` for `z_e` `[..., D]`; infinite if never chosen.

    The costs are differentiable. With "euclidean" they are squared distances up to a term common to all codes.

    >>> code_costs(jnp.array([1.0, 0.0]), jnp.array([[1.0, 0.0], [0.0, 2.0]])).tolist()
    [-1.0, 4.0]
    """
    vectors, codes = _checked(z_e, codes)
    return _costs(vectors, *_searchable(codes, assignment), assignment)


def _checked(z_e: ArrayLike, codes: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return both as float32; raise ArgumentError if their shapes do not fit."""
    vectors, table = jnp.asarray(z_e, jnp.float32), jnp.asarray(codes, jnp.float32)
    if table.ndim != 2 or not vectors.ndim or table.shape[-1] != vectors.shape[-1]:
        given = f"not {list(table.shape)}"
        raise ArgumentError("codes", f"must be [K, D], with the D of z_e {list(vectors.shape)}, {given}")
    return vectors, table


def _searchable(codes: jax.Array, assignment: str) -> tuple[jax.Array, jax.Array]:
    """Return the codes `[K, D]` to multiply with, and a cost offset `[K]`."""
    squares = jnp.sum(jnp.square(codes), axis=-1)
    if assignment == "euclidean":
        return codes, squares
    return unit(codes), jnp.where(squares > EPSILON, 0.0, jnp.inf)


def _costs(vectors: jax.Array, codes: jax.Array, offsets: jax.Array, assignment: str) -> jax.Array:
    inner = jnp.einsum("...d,kd->...k", vectors, codes, precision=jax.lax.Precision.HIGHEST)
    return choose("assignment", assignment, _COSTS)(inner, offsets)


def _cheapest(vectors: jax.Array, codes: jax.Array, offsets: jax.Array, assignment: str) -> tuple[jax.Array, jax.Array]:
    """Return the least costs `[...]`, and the indices `[...]` int32 of the codes that have them."""
    return min_and_argmin(_costs(vectors, codes, offsets, assignment))
