"""PCA of whole images: coefficients rounded with one step for all, and coded by how often each integer occurs.

With one step for all coefficients, each gets the bits that its variance is worth, as in reverse water-filling.
"""

import dataclasses

import numpy as np

from benchmarks.peers.static_coding import decode_symbols, encode_symbols, frequencies

# A coefficient is rounded towards 0 if its fraction is below 1 − this. Below 1/2, more become 0, which costs little.
_ROUNDING = 0.33
_PIECE = 2000  # images transformed at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Components:
    """The mean and the principal components of images, pixels in [0, 255]."""

    mean: np.ndarray  # [P] float32
    basis: np.ndarray  # [P, P] float32, a component per column

    @classmethod
    def fit(cls, images: np.ndarray) -> "Components":
        """Return the components of `images` `[N, H, W, C]` uint8."""
        rows = images.reshape(len(images), -1)
        mean = rows.mean(axis=0, dtype=np.float64)
        products = np.zeros((rows.shape[1], rows.shape[1]))
        for start in range(0, len(rows), _PIECE):
            centred = (rows[start : start + _PIECE] - mean).astype(np.float32)
            products += centred.T @ centred
        return cls(mean.astype(np.float32), np.linalg.eigh(products)[1][:, ::-1].astype(np.float32))

    def coefficients(self, images: np.ndarray) -> np.ndarray:
        """Return the coefficients `[n, P]` float32 of `images` `[n, H, W, C]`, by decreasing variance."""
        return (images.reshape(len(images), -1) - self.mean) @ self.basis


@dataclasses.dataclass(frozen=True, eq=False)
class ComponentCode:
    """A step, and how often each integer occurs in each coefficient of the images to train on."""

    components: Components
    image_shape: tuple[int, int, int]
    step: float
    lowest: np.ndarray  # [P] int32, of each coefficient as an integer
    highest: np.ndarray  # [P] int32
    levels: np.ndarray  # [P, K] float32, the mean coefficient that each symbol, integer − lowest, stands for
    probabilities: np.ndarray  # [P, K] float64

    @classmethod
    def fit(
        cls, components: Components, coefficients: np.ndarray, image_shape: tuple[int, int, int], step: float
    ) -> "ComponentCode":
        """Return the code of images with these coefficients `[N, P]`; `step` is in units of pixels in [0, 255]."""
        integers = rounded(coefficients, step)
        lowest, highest = integers.min(axis=0), integers.max(axis=0)
        symbols = integers - lowest
        num_symbols = int(symbols.max()) + 1
        levels = _means(symbols, coefficients, num_symbols, lowest, step)
        probabilities = frequencies(symbols, num_symbols)
        return cls(components, image_shape, step, lowest, highest, levels, probabilities)

    def encode(self, images: np.ndarray) -> bytes:
        """Return `images` `[n, H, W, C]` uint8 as bytes; integers beyond those of the training images become theirs."""
        integers = rounded(self.components.coefficients(images), self.step)
        return encode_symbols(np.clip(integers, self.lowest, self.highest) - self.lowest, self.probabilities)

    def decode(self, data: bytes, count: int) -> np.ndarray:
        """Return the images `[count, H, W, C]` uint8 of these bytes."""
        symbols = decode_symbols(data, count, self.probabilities)
        coefficients = self.levels[np.arange(len(self.lowest)), symbols]
        pixels = coefficients @ self.components.basis.T + self.components.mean
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8).reshape(count, *self.image_shape)


def rounded(coefficients: np.ndarray, step: float) -> np.ndarray:
    """Return coefficients in units of `step` as integers, int32."""
    size = np.floor(np.abs(coefficients) / step + _ROUNDING)
    return (np.sign(coefficients) * size).astype(np.int32)


def _means(
    symbols: np.ndarray, coefficients: np.ndarray, num_symbols: int, lowest: np.ndarray, step: float
) -> np.ndarray:
    """Return the mean coefficient `[P, K]` of each symbol; integer times step where the symbol does not occur."""
    levels = (lowest[:, None] + np.arange(num_symbols)) * np.float32(step)
    for position in range(symbols.shape[1]):
        counts = np.bincount(symbols[:, position], minlength=num_symbols)
        sums = np.bincount(symbols[:, position], coefficients[:, position], minlength=num_symbols)
        levels[position, counts > 0] = sums[counts > 0] / counts[counts > 0]
    return levels.astype(np.float32)
