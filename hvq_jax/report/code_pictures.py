"""What codes look like: pictures that are decoded from one code alone."""

import numpy as np

from hvq_jax.runs.loaded import LoadedRun


def code_vectors(run: LoadedRun) -> np.ndarray:
    """Return what the decoder sees of each code alone, `[L, K, D]` float32; L is 1 for a single codebook.

    Of several codebooks, that is a code with nothing from the others.
    """
    model = run.stream.model
    if not model.index_shape:
        return run.codebook[None]
    num_levels, num_codes, width = run.codebook.shape
    dim = model.latent_options.dim
    vectors = np.zeros((num_levels, num_codes, dim), np.float32)
    for level, own in enumerate(run.codebook):
        first = level * width if width < dim else 0  # of a group of channels
        vectors[level, :, first : first + width] = own
    return vectors


def decode_alone(run: LoadedRun, vectors: np.ndarray, positions: int) -> np.ndarray:
    """Return what single vectors `[n, D]` look like, `[n, H', W', C]` uint8.

    A picture is the middle of the image whose latent is this vector everywhere: so many positions, or all, in each
    direction.
    """
    height, width = run.stream.latent_shape
    latents = (np.broadcast_to(vector, (height, width, len(vector))) for vector in vectors)
    image_height, image_width, _ = run.stream.model.image_shape
    rows = _middle(height, positions, image_height // height)
    columns = _middle(width, positions, image_width // width)
    return np.concatenate([images[:, rows, columns] for images in run.stream.decode(latents)])


def _middle(count: int, shown: int, factor: int) -> slice:
    """Return the pixels of the middle `shown` of `count` positions of `factor` pixels each.

    >>> _middle(7, 3, 4), _middle(2, 3, 4)
    (slice(8, 20, None), slice(0, 8, None))
    """
    first = max(count - shown, 0) // 2
    return slice(first * factor, (first + min(count, shown)) * factor)
