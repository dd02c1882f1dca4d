"""Batches of few sizes for any number of items, so that few programs are compiled."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

T = TypeVar("T")

BATCH = 64  # items per compiled call


class Images(Protocol):
    """Images `[H, W, C]` that can be counted, and iterated as often as needed: an array, or files."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Return up to `most` of the numbers from 0 to `count` - 1, increasing: of all classes where these are sorted.

    >>> evenly_spaced(10, 4).tolist(), evenly_spaced(3, 4).tolist()
    ([0, 3, 6, 9], [0, 1, 2])
    """
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def padded_size(count: int, smallest: int, largest: int = BATCH) -> int:
    """Return the size that `count` items are padded to: a power of two times `smallest`, at most `largest`.

    >>> [padded_size(count, 1) for count in (1, 3, 4, 33, 64)], padded_size(3, BATCH)
    ([1, 4, 4, 64, 64], 64)
    """
    size = smallest
    while size < count:
        size *= 2
    return min(size, largest)


def padded(items: np.ndarray, size: int) -> np.ndarray:
    """Return `items` `[n, ...]` padded with zeros to `[size, ...]`.

    >>> padded(np.ones((1, 2)), 2).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    return np.pad(items, ((0, size - len(items)), *[(0, 0)] * (items.ndim - 1)))


def stacks(items: Iterable[np.ndarray], size: int = BATCH) -> Iterator[np.ndarray]:
    """Yield the items in stacks of at most `size`; rows of an array are not copied.

    >>> [stack.tolist() for stack in stacks(iter(np.arange(5)), 2)]
    [[0, 1], [2, 3], [4]]
    """
    if isinstance(items, np.ndarray):
        yield from (items[start : start + size] for start in range(0, len(items), size))
        return
    items = iter(items)
    while stack := list(itertools.islice(items, size)):
        yield np.stack(stack)


def stacked(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the arrays of parts of a batch by name, one after the other; those of a single part are not read.

    >>> stacked([{"x": np.zeros(1)}, {"x": np.ones(1)}])["x"].tolist()
    [0.0, 1.0]
    """
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def one_ahead(dispatched: Iterable[tuple[Mapping[str, Any], int]], make: Callable[..., T]) -> Iterator[T]:
    """Yield `make(**arrays)` of each batch, without its padding, while the device works on the next one.

    Args:
        dispatched: arrays of batches by name, the first axis padded, and the number of items in it.
        make: a function of numpy arrays.
    """
    before: tuple[Mapping[str, Any], int] | None = None
    for current in itertools.chain(dispatched, [None]):
        if before is not None:
            arrays, count = before
            yield make(**{name: np.asarray(x)[:count] for name, x in arrays.items()})
        before = current


def joined(pieces: Iterable[T]) -> T:
    """Return one or more pieces, equal dataclasses of arrays, as one."""
    first, *others = pieces
    if not others:
        return first
    arrays = {
        name: None if value is None else np.concatenate([value, *(getattr(piece, name) for piece in others)])
        for name, value in vars(first).items()
    }
    return type(first)(**arrays)
