"""Figures of merit: exact sums over ragged batches and devices, image quality, use of the codebook.

Images are float32 `[B, H, W, C]` in [-1, 1]; every image metric gives one figure an image, `[B]`.
All functions are pure and work under jit.
"""

import dm_pix
import jax
import jax.numpy as jnp
from flax import struct

# The PSNR of identical images is infinite and would spoil every mean. 100 dB is an MSE of 1e-10 on
# [0, 1]; rounding to 8 bits alone leaves 59 dB.
_MAX_PSNR = 100.0

# The window of Wang et al.
_SSIM_WINDOW = 11

# Spreads are computed about this value: gains lie near 1, and from squares of the gains themselves
# float32 loses what is left of a small variance after subtracting the squared mean.
_ORIGIN = 1.0


@struct.dataclass
class Mean:
    """A mean in the making: add up the parts of a set, or `jax.lax.psum` over devices."""

    total: jax.Array  # [] float32
    count: jax.Array  # [] float32

    @classmethod
    def of(cls, values: jax.Array, mask: jax.Array | None = None) -> "Mean":
        """Takes `values` (any shape) where `mask` (bool, same shape) is True, all if it is None."""
        return cls(total=_masked_sum(values, mask), count=_masked_count(values, mask))

    def __add__(self, other: "Mean") -> "Mean":
        return jax.tree.map(jnp.add, self, other)

    @property
    def value(self) -> jax.Array:
        """The mean `[]`; NaN where nothing was counted."""
        return self.total / self.count


@struct.dataclass
class Moments:
    """Mean and standard deviation in the making, adding up as `Mean` does; meant for gains."""

    total: jax.Array  # [] float32, of value − 1
    total_of_squares: jax.Array  # [] float32, of (value − 1)²
    count: jax.Array  # [] float32

    @classmethod
    def of(cls, values: jax.Array, mask: jax.Array | None = None) -> "Moments":
        """Takes `values` (any shape) where `mask` (bool, same shape) is True, all if it is None."""
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
        """The mean `[]`; NaN where nothing was counted."""
        return _ORIGIN + self.total / self.count

    @property
    def std(self) -> jax.Array:
        """The standard deviation `[]`, over the count itself; NaN where nothing was counted."""
        variance = self.total_of_squares / self.count - jnp.square(self.total / self.count)
        return jnp.sqrt(jnp.maximum(variance, 0.0))


def mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean squared error on [-1, 1] `[B]`: four times that of the same images on [0, 1]."""
    return dm_pix.mse(x, y)


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio `[B]` in dB, stated on [0, 1]; identical images get 100 dB.

    A data set's PSNR is the mean over its images, not the PSNR of its mean squared error.
    """
    return jnp.minimum(dm_pix.psnr(_to_unit(x), _to_unit(y)), _MAX_PSNR)


def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
    """Structural similarity `[B]`, stated on [0, 1], the channels' mean; 1 for identical images.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004:
    a Gaussian window of 11 × 11 pixels, σ = 1.5, or of the image's shorter side if that is less.
    """
    window = min(_SSIM_WINDOW, *x.shape[1:3])
    return dm_pix.ssim(_to_unit(x), _to_unit(y), filter_size=window)


def perplexity(counts: jax.Array) -> jax.Array:
    """Effective number of codes in use `[]`: exp of the entropy, in nats, of `counts` `[K]`.

    Between 1 (one code) and K (all alike); 0 where nothing was counted. Take the counts over the
    whole evaluation set: the perplexity of a batch depends on its size. Of several codebooks,
    `[..., K]`, the mean.
    """
    counts = counts.astype(jnp.float32)
    total = jnp.sum(counts, axis=-1)
    entropy = jnp.sum(jax.scipy.special.entr(counts / jnp.where(total > 0, total, 1.0)[..., None]), axis=-1)
    return jnp.mean(jnp.where(total > 0, jnp.exp(entropy), 0.0))


def share_used(counts: jax.Array) -> jax.Array:
    """Share `[]`, in [0, 1], of the codes that `counts` `[..., K]` saw at least once."""
    return jnp.mean((counts > 0).astype(jnp.float32))


def _masked_sum(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    values = values.astype(jnp.float32)
    # `where` and not a product: padding may hold NaN.
    return jnp.sum(values if mask is None else jnp.where(mask, values, 0.0))


def _masked_count(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jnp.float32(values.size) if mask is None else jnp.sum(mask, dtype=jnp.float32)


def _to_unit(images: jax.Array) -> jax.Array:
    return (images + 1.0) / 2.0
