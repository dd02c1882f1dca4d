"""Equal parts of a batch, computed side by side on the cores of a CPU.

On CPU, XLA computes the operations of a loop one after the other and divides only large ones among the cores, and JAX
computes what one thread has dispatched one after the other. A loop of small operations, such as that over the positions
of a latent, so keeps one core busy. Parts that are dispatched by different threads are computed at the same time.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax

from hvq_jax.devices.cores import number_of_cores

T = TypeVar("T")

_FEWEST_ROWS = 8  # of a part: products with fewer rows are slower per row


def side_by_side(call: Callable[[slice], T], size: int, *, rows: int = 1) -> list[T]:
    """Return the results of `call` for equal parts of a batch, in order: one where there is no CPU to divide.

    Only on CPU, where there are several cores, and where every part has enough to do, are there several parts.

    >>> side_by_side(lambda part: part.stop - part.start, 7)
    [7]

    Args:
        call: a function that dispatches a compiled program for a part of the batch. The first part is called before the
            others, so that the program is compiled once.
        size: of the batch, known.
        rows: of the program's products, for each item of the batch.
    """
    count = _number_of_parts(size, rows)
    length = size // count
    parts = [slice(start, start + length) for start in range(0, size, length)]
    first = call(parts[0])
    if count == 1:
        return [first]
    with ThreadPoolExecutor(count - 1) as pool:
        others = list(pool.map(lambda part: jax.block_until_ready(call(part)), parts[1:]))
    return [first, *others]


def _number_of_parts(size: int, rows: int) -> int:
    """Return a power of two that divides `size`, at most the number of cores."""
    cores, count = number_of_cores() if jax.default_backend() == "cpu" else 1, 1
    while 2 * count <= cores and size % (2 * count) == 0 and rows * size >= 2 * count * _FEWEST_ROWS:
        count *= 2
    return count
