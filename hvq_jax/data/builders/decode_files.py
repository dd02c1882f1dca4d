"""Decoding of many image files in parallel, in constant memory."""

import collections
import concurrent.futures
import io
import pathlib
from collections.abc import Generator, Iterable

import numpy as np

from hvq_jax.data.decode import ImageError, Sides, read_image
from hvq_jax.devices.cores import number_of_cores

_MOST_THREADS = 32
_AHEAD = 16  # files per thread, so that a large file does not block the others
_AHEAD_BYTES = 1 << 28  # of contents in memory

Encoded = pathlib.Path | bytes | ImageError  # an image file, its content, or why there is none


def decode_files(
    files: Iterable[Encoded], *, sides: Sides, channels: int, num_threads: int | None = None
) -> Generator[np.ndarray | ImageError, None, None]:
    """Yield the images of `files`, in order, fitted to `sides`.

    Pillow decodes and resizes without the GIL, so threads use all cores. Close the generator, as with
    `contextlib.closing`, to stop them: each finishes the file that it is decoding and starts no other.

    Args:
        files: paths or contents of image files, consumed as needed; an error in place of one is passed on.
        sides: (height, width): resize images to cover these and crop the centre.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        num_threads: number of threads; `None` for one per core.

    Yields:
        For each file an image, uint8 [height, width, channels], or the error that it raised.
    """
    num_threads = num_threads or min(number_of_cores(), _MOST_THREADS)

    def decode(file: Encoded) -> np.ndarray | ImageError:
        if isinstance(file, ImageError):
            return file
        try:
            return read_image(io.BytesIO(file) if isinstance(file, bytes) else file, sides, channels)[0]
        except ImageError as error:
            return error

    pending: collections.deque[tuple[concurrent.futures.Future[np.ndarray | ImageError], int]] = collections.deque()
    pending_bytes = 0
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    try:
        for file in files:
            size = len(file) if isinstance(file, bytes) else 0
            pending.append((pool.submit(decode, file), size))
            pending_bytes += size
            while len(pending) > _AHEAD * num_threads or pending_bytes > _AHEAD_BYTES:
                future, size = pending.popleft()
                yield future.result()
                pending_bytes -= size
        while pending:
            yield pending.popleft()[0].result()
    finally:
        # Without waiting: the garbage collector may run this in a thread that another one waits for.
        pool.shutdown(wait=False, cancel_futures=True)
