"""Decoding many image files at once, in constant memory."""

import collections
import concurrent.futures
import os
import pathlib
from collections.abc import Generator, Iterable

import numpy as np

from hvq_jax.data.decode import ImageError, decode_image, fit_image

_MOST_THREADS = 32
_AHEAD = 16  # files a thread, so that a large one holds up none of the others


def decode_files(
    paths: Iterable[pathlib.Path], *, image_size: int, channels: int, num_threads: int | None = None
) -> Generator[np.ndarray | ImageError, None, None]:
    """Yields the images of `paths`, in their order, fitted to a square.

    Pillow decodes and resizes without the GIL, so threads use all cores. Close the generator, as with
    `contextlib.closing`, to end them: each finishes the file that it is decoding and starts no other.

    Args:
        paths: image files; taken as they are needed.
        image_size: the shorter side is resized to it, then the centre cropped; in pixels.
        channels: 1 grey, 3 colour, 4 colour and opacity.
        num_threads: `None` is one a core.

    Returns:
        For each file uint8 [image_size, image_size, channels], or what is wrong with it.
    """
    num_threads = num_threads or min(os.cpu_count() or 1, _MOST_THREADS)

    def decode(path: pathlib.Path) -> np.ndarray | ImageError:
        try:
            image = decode_image(path, channels, min_side=image_size)
        except ImageError as error:
            return error
        return np.asarray(fit_image(image, image_size)).reshape(image_size, image_size, channels)

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
