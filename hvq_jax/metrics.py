"""Metrics: exact means over ragged batches and devices, image quality, and codebook usage.

Images are float32 `[B, H, W, C]` in [-1, 1]; every image metric returns one value per image, `[B]`. All functions are
pure and work under jit.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

# The PSNR of identical images is infinite and would make every mean infinite. 100 dB is an MSE of 1e-10 on [0, 1];
# rounding to 8 bits alone gives 59 dB.
_MAX_PSNR = 100.0

# Window of Wang et al., in pixels.
_SSIM_WINDOW = 11

# Standard deviations are computed about this value. Gains lie near 1, and with squares of the gains themselves, a small
# variance would be lost in float32 when the squared mean is subtracted.
_ORIGIN = 1.0


@struct.dataclass
class Mean:
    """A running mean. Add instances to combine parts of a set, or use `jax.lax.psum` to combine devices.

    >>> (Mean.of(jnp.array([1.0, 2.0])) + Mean.of(jnp.array([6.0]))).value.item()
    3.0
    """

    total: jax.Array  # [] float32
    count: jax.Array  # [] float32

    @classmethod
    def of(cls, values: ArrayLike, mask: ArrayLike | None = None) -> "Mean":
        """Return the mean of `values` (any shape) where `mask` (bool, same shape) is True; None selects all."""
        values = jnp.asarray(values)
        mask = None if mask is None else jnp.asarray(mask)
        return cls(total=_masked_sum(values, mask), count=_masked_count(values, mask))

    def __add__(self, other: "Mean") -> "Mean":
        return jax.tree.map(jnp.add, self, other)

    @property
    def value(self) -> jax.Array:
        """The mean `[]`; NaN if nothing was counted."""
        return self.total / self.count


@struct.dataclass
class Moments:
    """A running mean and standard deviation, combined in the same way as `Mean`; intended for gains.

    >>> moments = Moments.of(jnp.array([0.5, 1.5]))
    >>> moments.mean.item(), moments.std.item()
    (1.0, 0.5)
    """

    total: jax.Array  # [] float32, of value − 1
    total_of_squares: jax.Array  # [] float32, of (value − 1)²
    count: jax.Array  # [] float32

    @classmethod
    def of(cls, values: ArrayLike, mask: ArrayLike | None = None) -> "Moments":
        """Return the moments of `values` (any shape) where `mask` (bool, same shape) is True; None selects all."""
        values = jnp.asarray(values)
        mask = None if mask is None else jnp.asarray(mask)
        differences = values.astype(jnp.float32) - _ORIGIN
        return cls(
            total=_masked_sum(differences, mask),
            total_of_squares=_masked_sum(jnp.square(differences), mask),
            count=_masked_count(values, mask),
        )

    def __add__(self, other: "Moments") -> "Moments":
        return jax.tree.map(jnp.add, self, other)

    @property
    def mean(self) -> jax.Array:
        """The mean `[]`; NaN if nothing was counted."""
        return _ORIGIN + self.total / self.count

    @property
    def std(self) -> jax.Array:
        """The population standard deviation `[]` (divided by the count); NaN if nothing was counted."""
        variance = self.total_of_squares / self.count - jnp.square(self.total / self.count)
        return jnp.sqrt(jnp.maximum(variance, 0.0))


def mse(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Return the mean squared error `[B]` on [-1, 1], which is four times that of the same images on [0, 1].

    >>> mse(jnp.zeros((2, 8, 8, 1)), jnp.full((2, 8, 8, 1), 0.5)).tolist()
    [0.25, 0.25]
    """
    x, y = _alike(x, y)
    return jnp.mean(jnp.square(x - y), axis=(-3, -2, -1))


def psnr(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Return the peak signal-to-noise ratio `[B]` in dB, computed on [0, 1]; 100 dB for identical images.

    The PSNR of a data set is the mean over its images, not the PSNR of the mean squared error.

    >>> images = jnp.zeros((1, 8, 8, 1))
    >>> psnr(images, images).tolist(), psnr(images, images + 0.2).round().tolist()
    ([100.0], [20.0])
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    decibels = -10.0 * jnp.log(mse(_to_unit(x), _to_unit(y))) / jnp.log(10.0)
    return jnp.minimum(decibels, _MAX_PSNR)


def ssim(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Return the structural similarity `[B]`, computed on [0, 1] and averaged over channels; 1 for identical images.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004. The Gaussian window
    has 11 × 11 pixels and σ = 1.5; its side is the image's shorter side if that is less.

    >>> images = jnp.linspace(-1.0, 1.0, 64).reshape(1, 8, 8, 1)
    >>> ssim(images, images).round(3).tolist(), (ssim(images, -images) < 0).tolist()
    ([1.0], [True])
    """
    x, y = _alike(x, y)
    x, y = _to_unit(x), _to_unit(y)
    blur = partial(_blur, kernel=_gaussian(min(_SSIM_WINDOW, *x.shape[1:3])))
    mean_x, mean_y = blur(x), blur(y)
    # Rounding may leave variances below zero, and covariances beyond what the variances allow.
    smallest = jnp.finfo(jnp.float32).eps ** 2
    variance_x = jnp.maximum(smallest, blur(x**2) - mean_x * mean_x)
    variance_y = jnp.maximum(smallest, blur(y**2) - mean_y * mean_y)
    covariance = blur(x * y) - mean_x * mean_y
    covariance = jnp.sign(covariance) * jnp.minimum(jnp.sqrt(variance_x * variance_y), jnp.abs(covariance))
    c1, c2 = 0.01**2, 0.03**2  # of images on [0, 1]
    numerator = (2 * (mean_x * mean_y) + c1) * (2 * covariance + c2)
    denominator = (mean_x * mean_x + mean_y * mean_y + c1) * (variance_x + variance_y + c2)
    return jnp.mean(numerator / denominator, axis=(-3, -2, -1))


def _gaussian(size: int) -> jax.Array:
    """Return the weights `[size]` of a Gaussian of σ = 1.5 about the centre."""
    distances = jnp.arange(size) - (size - 1) / 2
    weights = jnp.exp(-0.5 * (distances / 1.5) ** 2)
    return weights / jnp.sum(weights)


def _blur(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return `images` `[B, H, W, C]` filtered by `kernel` `[n]` in both directions: `[B, H − n + 1, W − n + 1, C]`."""
    for axis in (-2, -3):
        lines = jnp.moveaxis(images, axis, -1)
        convolve = partial(jnp.convolve, v=kernel, mode="valid", precision=jax.lax.Precision.HIGHEST)
        filtered = jax.vmap(convolve)(lines.reshape(-1, lines.shape[-1]))
        images = jnp.moveaxis(filtered.reshape(*lines.shape[:-1], -1), -1, axis)
    return images


@jax.jit  # logs call it outside jit, where each operation would be a program of its own to compile
def perplexity(counts: ArrayLike) -> jax.Array:
    """Return the effective number of codes in use `[]`: exp of the entropy, in nats, of `counts` `[K]`.

    The result lies between 1 (one code is used) and K (all are used equally); it is 0 if nothing was counted. Count
    over the whole evaluation set, since the perplexity of a batch depends on its size. For several codebooks,
    `[..., K]`, the mean is returned.

    >>> perplexity(jnp.array([5, 5, 0, 0])).round(4).item()
    2.0
    """
    counts = jnp.asarray(counts)
    counts = counts.astype(jnp.float32)
    total = jnp.sum(counts, axis=-1)
    entropy = jnp.sum(jax.scipy.special.entr(counts / jnp.where(total > 0, total, 1.0)[..., None]), axis=-1)
    return jnp.mean(jnp.where(total > 0, jnp.exp(entropy), 0.0))


def share_used(counts: ArrayLike) -> jax.Array:
    """Return the fraction `[]`, in [0, 1], of codes that occur at least once in `counts` `[..., K]`.

    >>> share_used(jnp.array([5, 1, 0, 0])).item()
    0.5
    """
    counts = jnp.asarray(counts)
    return jnp.mean((counts > 0).astype(jnp.float32))


def _masked_sum(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    values = values.astype(jnp.float32)
    # `where` instead of a product, because padding may hold NaN.
    return jnp.sum(values if mask is None else jnp.where(mask, values, 0.0))


def _masked_count(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jnp.float32(values.size) if mask is None else jnp.sum(mask, dtype=jnp.float32)


def _alike(x: ArrayLike, y: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return both as arrays; raise ValueError unless they have one shape."""
    x, y = jnp.asarray(x), jnp.asarray(y)
    if x.shape != y.shape:
        raise ValueError(f"x and y must have the same shape, not {list(x.shape)} and {list(y.shape)}")
    return x, y


def _to_unit(images: jax.Array) -> jax.Array:
    return (images + 1.0) / 2.0
