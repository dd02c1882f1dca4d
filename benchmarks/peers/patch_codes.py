"""k-means of raw patches: each patch of an image becomes the number of the nearest centre."""

import dataclasses
from functools import partial

import numpy as np

from benchmarks.peers.static_coding import decode_symbols, encode_symbols, frequencies

SIDE = 4  # pixels; a seventh of 28, as the grids of codes that the autoencoder makes of 28×28 images
_MOST_PATCHES = 300_000  # to find centres from
_PASSES = 20  # over these
_BATCH = 8192  # patches per step
_PIECE = 2000  # images assigned at a time


@dataclasses.dataclass(frozen=True, eq=False)
class PatchCode:
    """Centres, and how often each is nearest at each position in the images to train on."""

    image_shape: tuple[int, int, int]
    centres: np.ndarray  # [K, SIDE * SIDE * C] float32, pixels in [0, 255]
    probabilities: np.ndarray  # [P, K] float64

    @classmethod
    def fit(cls, images: np.ndarray, num_codes: int, seed: int = 0) -> "PatchCode":
        """Return the code of `images` `[N, H, W, C]` uint8; H and W are multiples of `SIDE`."""
        from sklearn.cluster import MiniBatchKMeans

        rng = np.random.default_rng(seed)
        vectors = to_patches(images).reshape(-1, SIDE * SIDE * images.shape[-1])
        chosen = vectors[rng.permutation(len(vectors))[:_MOST_PATCHES]].astype(np.float32)
        options = {
            "batch_size": _BATCH,
            "max_iter": _PASSES,
            "n_init": 1,
            "reassignment_ratio": 0,
            "random_state": seed,
        }
        found = MiniBatchKMeans(num_codes, **options).fit(chosen)
        centres = found.cluster_centers_.astype(np.float32)
        height, width, channels = images.shape[1:]
        symbols = nearest_centres(images, centres)
        return cls((height, width, channels), centres, frequencies(symbols, num_codes))

    def encode(self, images: np.ndarray) -> bytes:
        """Return `images` `[n, H, W, C]` uint8 as bytes."""
        return encode_symbols(nearest_centres(images, self.centres), self.probabilities)

    def decode(self, data: bytes, count: int) -> np.ndarray:
        """Return the images `[count, H, W, C]` uint8 of these bytes."""
        symbols = decode_symbols(data, count, self.probabilities)
        return from_patches(np.rint(self.centres).astype(np.uint8)[symbols], self.image_shape)


def nearest_centres(images: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the number of the nearest centre of each patch, [n, P] int64, of `images` `[n, H, W, C]`."""
    from sklearn.metrics import pairwise_distances_argmin

    nearest = partial(pairwise_distances_argmin, Y=centres)
    pieces = [to_patches(images[start : start + _PIECE]) for start in range(0, len(images), _PIECE)]
    return np.concatenate([nearest(p.reshape(-1, p.shape[-1]).astype(np.float32)).reshape(p.shape[:2]) for p in pieces])


def to_patches(images: np.ndarray) -> np.ndarray:
    """Return the patches `[n, P, SIDE * SIDE * C]` of `images` `[n, H, W, C]`, row by row."""
    count, height, width, channels = images.shape
    tiles = images.reshape(count, height // SIDE, SIDE, width // SIDE, SIDE, channels).swapaxes(2, 3)
    return tiles.reshape(count, -1, SIDE * SIDE * channels)


def from_patches(patches: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Return the images `[n, H, W, C]` of `patches` `[n, P, SIDE * SIDE * C]`; the inverse of `to_patches`."""
    height, width, channels = image_shape
    tiles = patches.reshape(-1, height // SIDE, width // SIDE, SIDE, SIDE, channels).swapaxes(2, 3)
    return tiles.reshape(-1, height, width, channels)
