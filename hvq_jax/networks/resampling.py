"""4×4 convolutions with stride 2 and padding 1, and their transposes, in the fastest form for each platform.

Both are linear in image and kernel, and each is the transpose of the other. So the gradient of one is a call of the
other, and a third function, `kernel_gradient`, serves both. Accelerators use XLA's own convolutions. On CPU these are
slow if they dilate the image: several times slower for the gradient, and a hundred times for the gradient of a
transposed convolution. There, four 2×2 convolutions, one per phase, compute the same result: between many channels
with fewer multiplications (`winograd.py`), as one 2×2 convolution whose channels are those of all phases. If the output
has few channels, like an image, a matrix product is faster still.

Tap t, from 0 to 3, of output i reads input 2i − 1 + t. Kernels are `[4, 4, in, out]`. Image and kernel are both float32
or both bfloat16, and the result has the same dtype; a sum is rounded to bfloat16 once, when it is complete.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hvq_jax.fusion import materialised
from hvq_jax.networks import winograd
from hvq_jax.networks.convolution import LAYOUT

_THIN = 4  # the channels of an image; up to this number, 16 taps of them form one narrow matrix


@jax.custom_vjp
def halve_resolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve `[B, 2h, 2w, I]` to `[B, h, w, O]`, kernel `[4, 4, I, O]` (PyTorch's `Conv2d` with axes moved)."""
    return _for_platform(_halve_on_cpu, _halve, x, kernel)


@jax.custom_vjp
def double_resolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Apply the transposed convolution: `[B, h, w, I]` to `[B, 2h, 2w, O]`, kernel `[4, 4, I, O]`.

    Tap t of input i adds to output 2i − 1 + t (PyTorch's `ConvTranspose2d` with axes moved).
    """
    on_cpu = _double_as_product if kernel.shape[-1] <= _THIN else _double_on_cpu
    return _for_platform(on_cpu, _double, x, kernel)


def kernel_gradient(large: jax.Array, small: jax.Array) -> jax.Array:
    """Return Σ large[2i − 1 + t] smallᵢᵀ, `[4, 4, I, O]`, summed over positions i and images.

    Args:
        large: `[B, 2h, 2w, I]`, the input of `halve_resolution`, or the output gradient of `double_resolution`.
        small: `[B, h, w, O]`, the output gradient of `halve_resolution`, or the input of `double_resolution` (whose
            kernel has the last two axes swapped).
    """
    on_cpu = _kernel_gradient_as_product if large.shape[-1] <= _THIN else _kernel_gradient_on_cpu
    return _for_platform(on_cpu, _kernel_gradient, large, small)


def _swapped(kernel: jax.Array) -> jax.Array:
    return materialised(kernel.swapaxes(2, 3))[0]


def _halve_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return double_resolution(g, _swapped(kernel)), kernel_gradient(x, g)


def _double_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return halve_resolution(g, _swapped(kernel)), _swapped(kernel_gradient(g, x))


halve_resolution.defvjp(lambda x, kernel: (halve_resolution(x, kernel), (x, kernel)), _halve_backward)
double_resolution.defvjp(lambda x, kernel: (double_resolution(x, kernel), (x, kernel)), _double_backward)


def _for_platform(cpu: Callable[..., Any], default: Callable[..., Any], *arguments: jax.Array) -> jax.Array:
    if cpu is default:
        return default(*arguments)
    return jax.lax.platform_dependent(*arguments, cpu=cpu, default=default)


def _halve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=LAYOUT)


def _padded(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _halve_on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    phases, taps = jax.eval_shape(_phases_of_image, x), _phases_of_taps(kernel)
    if winograd.is_worthwhile(phases.shape, taps.shape, x.dtype):
        return winograd.correlate(x, taps, before=_phases_of_image)
    return _halve_padded(x, kernel)


def _phases_of_image(x: jax.Array) -> jax.Array:
    """Pad, and join even and odd rows and columns as channels: `[B, 2h, 2w, I]` to `[B, h + 1, w + 1, 4 I]`."""
    batch, height, width, channels = x.shape
    pairs = _padded(x).reshape(batch, height // 2 + 1, 2, width // 2 + 1, 2, channels)
    return pairs.swapaxes(2, 3).reshape(batch, height // 2 + 1, width // 2 + 1, 4 * channels)


def _phases_of_taps(kernel: jax.Array) -> jax.Array:
    """Join even and odd taps as inputs: `[4, 4, I, O]` to the `[2, 2, 4 I, O]` that `_phases_of_image` requires."""
    pairs = kernel.reshape(2, 2, 2, 2, *kernel.shape[2:])
    return pairs.swapaxes(1, 2).reshape(2, 2, -1, kernel.shape[-1])


def _taps_of_phases(taps: jax.Array) -> jax.Array:
    """Undo `_phases_of_taps`: `[2, 2, 4 I, O]` to `[4, 4, I, O]`."""
    inputs, outputs = taps.shape[2] // 4, taps.shape[3]
    return taps.reshape(2, 2, 2, 2, inputs, outputs).swapaxes(1, 2).reshape(4, 4, inputs, outputs)


def _halve_padded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # If padding is fused with the computation of the image, the convolution takes up to twice as long.
    (padded,) = materialised(_padded(x))
    return jax.lax.conv_general_dilated(padded, kernel, (2, 2), "VALID", dimension_numbers=LAYOUT)


def _double(x: jax.Array, kernel: jax.Array) -> jax.Array:
    turned = kernel[::-1, ::-1]
    return jax.lax.conv_general_dilated(
        x, turned, (1, 1), [(2, 2), (2, 2)], lhs_dilation=(2, 2), dimension_numbers=LAYOUT
    )


def _kernel_gradient(large: jax.Array, small: jax.Array) -> jax.Array:
    kernel = jax.ShapeDtypeStruct((4, 4, large.shape[-1], small.shape[-1]), large.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: _halve(large, kernel), kernel)(small)
    return gradient


def _kernel_gradient_of_materialised(large: jax.Array, small: jax.Array) -> jax.Array:
    return _kernel_gradient(*materialised(large, small))


def _kernel_gradient_on_cpu(large: jax.Array, small: jax.Array) -> jax.Array:
    phases = jax.eval_shape(_phases_of_image, large)
    if winograd.is_worthwhile(phases.shape, (2, 2, phases.shape[-1], small.shape[-1]), large.dtype):
        return _taps_of_phases(winograd.kernel_gradient(large, small, before=_phases_of_image))
    return _kernel_gradient_of_materialised(large, small)


def _double_on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # Phase r of the output rows sees rows r and r + 1 of the padded input with taps 3 − r and 1 − r.
    taps = kernel[::-1, ::-1].reshape(2, 2, 2, 2, *kernel.shape[2:]).transpose(0, 2, 4, 1, 3, 5)
    taps = taps.reshape(2, 2, x.shape[-1], -1)
    if not winograd.is_worthwhile(jax.eval_shape(_padded, x).shape, taps.shape, x.dtype):
        return _double_in_phases(x, kernel)
    return winograd.correlate(x, taps, before=_padded, after=_phases_to_image)


def _phases_to_image(phases: jax.Array) -> jax.Array:
    """Take from each of four phases the outputs that are its own: `[B, h + 1, w + 1, 4 O]` to `[B, 2h, 2w, O]`."""
    batch, height, width = (phases.shape[0], phases.shape[1] - 1, phases.shape[2] - 1)
    phases = phases.reshape(batch, height + 1, width + 1, 2, 2, -1)
    rows = jnp.stack([phases[:, r : r + height, :, r] for r in (0, 1)], axis=2)
    both = jnp.stack([rows[:, :, :, c : c + width, c] for c in (0, 1)], axis=4)
    return both.reshape(batch, 2 * height, 2 * width, -1)


def _double_in_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute even output rows from two input rows with taps 3 and 1, odd ones with 2 and 0; the same for columns."""
    batch, height, width, _ = x.shape
    # Padding inside the convolutions would make them ten times slower.
    padded = _padded(x)

    def phase(row: int, column: int) -> jax.Array:
        seen = padded[:, row : row + height + 1, column : column + width + 1]
        taps = kernel[3 - row :: -2, 3 - column :: -2]
        return jax.lax.conv_general_dilated(seen, taps, (1, 1), "VALID", dimension_numbers=LAYOUT)

    rows = [jnp.stack([phase(row, column) for column in (0, 1)], axis=3) for row in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)


def _kernel_gradient_as_product(large: jax.Array, small: jax.Array) -> jax.Array:
    # Gather the 16 inputs of each output as 2×2 of the phases: longer runs of memory than 16 single taps.
    (phases,) = materialised(_phases_of_image(large))
    height, width, inputs = *small.shape[1:3], large.shape[-1]
    taps = [phases[:, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
    gradient = jnp.einsum("bhwi,bhwo->io", jnp.concatenate(taps, axis=-1), small)
    return _taps_of_phases(gradient.reshape(2, 2, 4 * inputs, -1))


def _double_as_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute what each input adds to each of 16 outputs in one product, then sum over rows and over columns."""
    batch, height, width, channels = x.shape
    taps = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    shares = jnp.matmul(x, taps, preferred_element_type=jnp.float32)
    # Tap 2a + r of input i adds to padded output 2 (i + a) + r.
    shares = shares.reshape(batch, height, width, 2, 2, 2, 2, -1).transpose(3, 5, 0, 1, 4, 2, 6, 7)
    rows = _shifted_sum(shares, axis=2)  # [b, B, h + 1, r, w, c, O]
    both = _shifted_sum(rows, axis=3)  # [B, h + 1, r, w + 1, c, O]
    padded = both.reshape(batch, 2 * height + 2, 2 * width + 2, -1)
    return padded[:, 1:-1, 1:-1].astype(x.dtype)


def _shifted_sum(pair: jax.Array, axis: int) -> jax.Array:
    """Return pair[0] plus pair[1] shifted by one along `axis`; the sum is one longer along that axis."""
    first, second = ([(0, 0)] * (pair.ndim - 1) for _ in range(2))
    first[axis], second[axis] = (0, 1), (1, 0)
    return jnp.pad(pair[0], first) + jnp.pad(pair[1], second)
