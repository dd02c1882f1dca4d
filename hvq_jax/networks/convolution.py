"""Convolutions of stride 1 that XLA runs fast on CPU, forward and backward.

Kernels of 2 or 3 taps per side between many channels are applied with fewer multiplications (`winograd.py`).

For other kernels, the gradient of the kernel is a convolution of the image with the gradient of the output. XLA on CPU
first transposes both so that channels become the batch. By default it fuses this transposition with the computation of
its operand, such as a whole batch normalisation, and evaluates that computation in transposed order, where neighbouring
numbers are pages apart. This takes ten times as long as computing the operand first and then transposing it.
`materialised` prevents the fusion.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hvq_jax.fusion import materialised
from hvq_jax.networks import winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Convolve `x` `[B, h, w, I]` with `kernel` `[kh, kw, I, O]` at stride 1, padding rows and columns with zeros.

    Negative padding leaves out rows or columns of `x`.
    """

    @jax.custom_vjp
    def function(x: jax.Array, kernel: jax.Array) -> jax.Array:
        forms = [partial(form, padding=padding) for form in (_convolve_on_cpu, _convolve)]
        return jax.lax.platform_dependent(x, kernel, cpu=forms[0], default=forms[1])

    def backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
        def on_cpu(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
            x, g = materialised(x, g)
            return _image_gradient(kernel, g, padding), _kernel_gradient(x, kernel, g, padding)

        def elsewhere(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.vjp(lambda x, kernel: _convolve(x, kernel, padding), x, kernel)[1](g)

        return jax.lax.platform_dependent(*saved, g, cpu=on_cpu, default=elsewhere)

    function.defvjp(lambda x, kernel: (function(x, kernel), (x, kernel)), backward)
    return function(x, kernel)


def _convolve(x: jax.Array, kernel: jax.Array, padding: Any) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=LAYOUT)


def _padded(x: jax.Array, padding: Padding) -> jax.Array:
    widths = [(0, 0), *padding, (0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0) for before, after in widths])


def _convolve_on_cpu(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    padded = partial(_padded, padding=padding)
    if winograd.is_worthwhile(jax.eval_shape(padded, x).shape, kernel.shape, x.dtype):
        return winograd.correlate(x, kernel, before=padded)
    return _convolve(x, kernel, padding)


def _image_gradient(kernel: jax.Array, g: jax.Array, padding: Padding) -> jax.Array:
    """Return the gradient of the image: `g` convolved with the rotated kernel."""
    (turned,) = materialised(kernel[::-1, ::-1])
    (turned,) = materialised(turned.swapaxes(2, 3))
    top, bottom, left, right = (
        size - 1 - pad for size, pads in zip(kernel.shape, padding, strict=False) for pad in pads
    )
    return _convolve_on_cpu(g, turned, ((top, bottom), (left, right)))


def _kernel_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array, padding: Padding) -> jax.Array:
    padded = partial(_padded, padding=padding)
    if winograd.is_worthwhile(jax.eval_shape(padded, x).shape, kernel.shape, x.dtype):
        return winograd.kernel_gradient(x, g, before=padded)
    (gradient,) = jax.linear_transpose(lambda kernel: _convolve(x, kernel, padding), kernel)(g)
    return gradient
