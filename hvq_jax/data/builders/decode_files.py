"""Decoding of many image files in parallel, in constant memory."""

import collections
import concurrent.futures
import os
import pathlib
from collections.abc import Generator, Iterable

import numpy as np

from hvq_jax.data.decode import ImageError, Sides, read_image

_MOST_THREADS = 32
_AHEAD = 16  # files per thread, so that a large file does not block the others


def decode_files(
    paths: Iterable[pathlib.Path], *, sides: Sides, channels: int, num_threads: int | None = None
) -> Generator[np.ndarray | ImageError, None, None]:
    """Yield the images of `paths`, in order, fitted to `sides`.

    Pillow decodes and resizes without the GIL, so threads use all cores. Close the generator, as with
    `contextlib.closing`, to stop them: each finishes the file that it is decoding and starts no other.

    Args:
        paths: image files, consumed as needed.
        sides: (height, width): resize images to cover these and crop the centre.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        num_threads: number of threads; `None` for one per core.

    Yields:
        For each file an image, uint8 [height, width, channels], or the error that it raised.
    """
    num_threads = num_threads or min(os.cpu_count() or 1, _MOST_THREADS)

    def decode(path: pathlib.Path) -> np.ndarray | ImageError:
        try:
            return read_image(path, sides, channels)[0]
        except ImageError as error:
            return error

    pending: collections.deque[concurrent.futures.Future[np.ndarray | ImageError]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    try:
        for path in paths:
            pending.append(pool.submit(decode, path))
            if len(pending) > _AHEAD * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Without waiting: the garbage collector may run this in a thread that another one waits for.
        pool.shutdown(wait=False, cancel_futures=True)
