"""Arrays that are sharded on a mesh with explicit axes, which is what `jax.make_mesh` makes by default.

There, sharding is part of an array's type, and JAX asks at each gather or reshape how the result is to be sharded. A
function decorated here is partitioned by the compiler instead, and its result is sharded like the batch that it got.
"""

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, ParamSpec, TypeVar

import jax
from jax.sharding import PartitionSpec

P = ParamSpec("P")
T = TypeVar("T")


def any_sharding(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function`, which then takes arrays with explicit sharding, and whose result is split like its batch.

    The batch is the first argument that is split along an explicit axis. The arrays of the result are split as it is
    along the leading axes that they share with it.

    >>> any_sharding(jax.numpy.square)(3.0).item()
    9.0
    """
    return _AnySharding(function, lambda result: result)


def any_sharding_in(batched: Callable[[Any], Any]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return the decorator `any_sharding`, by which only the arrays `batched(result)` are split; others are replicated.

    >>> any_sharding_in(lambda result: ())(jax.numpy.sum)(3.0).item()
    3.0
    """
    return lambda function: _AnySharding(function, batched)


class _AnySharding(Generic[P, T]):
    """A function that takes arrays with explicit sharding."""

    def __init__(self, function: Callable[P, T], batched: Callable[[Any], Any]) -> None:
        self._function, self._batched = function, batched
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        leaves, structure = jax.tree.flatten((args, kwargs))
        batch = next((leaf for leaf in leaves if isinstance(leaf, jax.Array) and _is_split(leaf)), None)
        if batch is None:
            return self._function(*args, **kwargs)
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
        form: dict[str, Any] = {}

        def run(arrays: list[jax.Array]) -> list[Any]:
            given = dict(zip(places, arrays, strict=True))
            filled = [given.get(place, leaf) for place, leaf in enumerate(leaves)]
            args, kwargs = jax.tree.unflatten(structure, filled)
            result = self._function(*args, **kwargs)
            split = set(map(id, jax.tree.leaves(self._batched(result))))
            made, form["structure"] = jax.tree.flatten(result)
            form["specs"] = [_spec_like(leaf, batch) if id(leaf) in split else PartitionSpec() for leaf in made]
            return made

        arrays = [leaves[place] for place in places]
        with _mesh_of(batch):
            jax.eval_shape(jax.sharding.auto_axes(run, out_sharding=PartitionSpec()), arrays)  # for the shapes
            made = jax.sharding.auto_axes(run, out_sharding=form["specs"])(arrays)
        result: T = jax.tree.unflatten(form["structure"], made)
        return result


def _sharding(array: jax.Array) -> Any:
    return jax.typeof(array).sharding


def _mesh_of(array: jax.Array) -> AbstractContextManager[Any]:
    """Enter the mesh of an array: as devices outside of compiled functions, and as a type within."""
    if not isinstance(array, jax.core.Tracer):
        with contextlib.suppress(ValueError):  # within one that closes over the array
            return jax.set_mesh(array.sharding.mesh)  # type: ignore[attr-defined]
    return jax.sharding.use_abstract_mesh(_sharding(array).mesh)


def _is_split(array: jax.Array) -> bool:
    """Return whether an array is split along an explicit axis."""
    sharding = _sharding(array)
    return bool(sharding.mesh.explicit_axes) and any(part is not None for part in sharding.spec)


def _spec_like(leaf: Any, batch: jax.Array) -> PartitionSpec:
    """Return the spec of `batch` for the leading axes of `leaf` that have the same size."""
    parts: list[Any] = []
    for size, expected, part in zip(leaf.shape, batch.shape, _sharding(batch).spec, strict=False):
        if size != expected:
            break
        parts.append(part)
    return PartitionSpec(*parts)
