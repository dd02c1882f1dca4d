"""Batches of a split: shuffled and repeated indefinitely for training, or in order and once for evaluation.

A batch is identified by one global number, counted from the start of training, and depends only on the seed and that
number. So the data position of a run is a single integer, and a run resumed there on any number of processes sees the
same images as without the interruption.
"""

import collections
import concurrent.futures
import functools
import itertools
import sys
from collections.abc import Callable, Generator
from typing import Any

import flax.struct
import numpy as np

from hvq_jax.data.augment import Augmentation, augment
from hvq_jax.data.datasets import AnySplit
from hvq_jax.data.shuffle import permutation
from hvq_jax.devices.preemption import uninterrupted
from hvq_jax.errors import UserError

_BATCHES_AHEAD = 4


@flax.struct.dataclass
class Batch:
    """One process's part of a global batch: B = batch_size / process_count."""

    items: Any  # images [B, H, W, C] uint8, or tokens [B, h, w, 1 + c] int16 or int32; what the split's `read` returns
    labels: Any  # [B] int32
    mask: Any  # [B] bool, False on padding


def steps_per_epoch(split: AnySplit, batch_size: int) -> int:
    """Return the number of training batches per epoch; an incomplete last batch is dropped.

    Raises:
        UserError: `batch_size` is not positive or exceeds the split.
    """
    if not 0 < batch_size <= len(split):
        raise UserError(f"batch size {batch_size}: must be between 1 and {len(split)}, the number of images")
    return len(split) // batch_size


def train_batches(
    split: AnySplit,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    augmentation: Augmentation | None = None,
) -> Generator[Batch, None, None]:
    """Yield training batches indefinitely, reshuffled every epoch.

    A few batches are read ahead in background threads; close the generator to stop them.

    Args:
        split: the images.
        batch_size: images per global batch, over all processes.
        seed: determines, together with the epoch, the order of the images.
        start: number of global batches already consumed; the first batch yielded has this number.
        process_index: index of the contiguous slice of every global batch to yield.
        process_count: number of slices.
        augmentation: random changes to the images, different in each epoch; requires images [H, W, C] uint8.

    Returns:
        A generator of batches of `batch_size / process_count` images; the mask is all True.

    Raises:
        UserError: `batch_size` is larger than the split, not positive or not divisible by
            `process_count`, or the seed is negative; while iterating, an image cannot be read.
    """
    steps = steps_per_epoch(split, batch_size)
    local = _local_slice(batch_size, process_index, process_count)

    @functools.lru_cache(maxsize=2)  # at the end of an epoch, threads may need both orders
    def order(epoch: int) -> np.ndarray:
        return permutation(len(split), seed, epoch)

    def batch(number: int) -> Batch:
        epoch, step = divmod(number, steps)
        rows = order(epoch)[step * batch_size :][local]
        images, labels = split.read(rows)
        if augmentation is not None:
            images = augment(images, augmentation, rows=rows, epoch=epoch, seed=seed)
        return Batch(images, labels, np.ones(len(rows), bool))

    order(start // steps)  # raises here, and not in a thread, if the seed is invalid
    return _read_ahead(range(start, sys.maxsize), batch, split)


def eval_batches(
    split: AnySplit, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Generator[Batch, None, None]:
    """Yield the batches of one pass in stored order, each image exactly once.

    The last global batch is padded to `batch_size` by repeating the split's last image, with the
    mask False there. Every process gets the same number of batches. A few are read ahead.

    Args:
        split: the images.
        batch_size: images per global batch, over all processes; may exceed the split.
        process_index: index of the contiguous slice of every global batch to yield.
        process_count: number of slices.

    Raises:
        UserError: `batch_size` is not positive or not divisible by `process_count`; while iterating, an image cannot
            be read.
    """
    local = _local_slice(batch_size, process_index, process_count)

    def batch(first: int) -> Batch:
        positions = np.arange(first, first + batch_size)[local]
        rows = np.minimum(positions, len(split) - 1)
        return Batch(*split.read(rows), positions < len(split))

    return _read_ahead(range(0, len(split), batch_size), batch, split)


def _local_slice(batch_size: int, process_index: int, process_count: int) -> slice:
    """Return the slice of a global batch that belongs to one process."""
    if batch_size <= 0 or batch_size % process_count:
        raise UserError(f"batch size {batch_size}: must be positive and divisible by the {process_count} processes")
    size = batch_size // process_count
    return slice(process_index * size, (process_index + 1) * size)


def _read_ahead(numbers: range, make: Callable[[int], Batch], split: AnySplit) -> Generator[Batch, None, None]:
    """Yield `make` of each number, a few ahead."""
    pool = concurrent.futures.ThreadPoolExecutor(split.num_threads, thread_name_prefix="read-batches")
    ahead = max(_BATCHES_AHEAD, split.num_threads)
    coming, waiting = iter(numbers), collections.deque[concurrent.futures.Future[Batch]]()
    try:
        while True:
            with uninterrupted():  # a stop inside a lock of the pool or of a future would be another error
                waiting.extend(pool.submit(make, number) for number in itertools.islice(coming, ahead - len(waiting)))
                if not waiting:
                    return
                batch = waiting.popleft().result()
            yield batch
    finally:
        with uninterrupted():  # a thread would outlive the generator, and keep the process
            pool.shutdown(cancel_futures=True)
