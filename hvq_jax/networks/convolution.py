"""Convolutions of stride 1 with a backward pass that XLA runs fast on CPU.

The gradient of the kernel is a convolution of the image with the gradient of the output. XLA on CPU first transposes
both so that channels become the batch. By default it fuses this transposition with the computation of its operand, such
as a whole batch normalisation, and evaluates that computation in transposed order, where neighbouring numbers are pages
apart. This takes ten times as long as computing the operand first and then transposing it. `materialised` prevents the
fusion.
"""

from typing import Any

import jax

LAYOUT = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]


def materialised(*arrays: jax.Array) -> Any:
    """Return the arrays unchanged, computed before their consumers: XLA does not fuse across this point.

    On CPU this requires an option of XLA (see `devices/xla.py`); without it the results are the same, but slower.
    """
    return jax.lax.optimization_barrier(arrays)


def convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Convolve `x` `[B, h, w, I]` with `kernel` `[kh, kw, I, O]` at stride 1, padding rows and columns with zeros."""

    @jax.custom_vjp
    def function(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _convolve(x, kernel, padding)

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


def _image_gradient(kernel: jax.Array, g: jax.Array, padding: Padding) -> jax.Array:
    """Return the gradient of the image: `g` convolved with the rotated kernel."""
    (turned,) = materialised(kernel[::-1, ::-1])
    (turned,) = materialised(turned.swapaxes(2, 3))
    rest = [(size - 1 - low, size - 1 - high) for size, (low, high) in zip(kernel.shape, padding, strict=False)]
    return _convolve(g, turned, rest)


def _kernel_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array, padding: Padding) -> jax.Array:
    (gradient,) = jax.linear_transpose(lambda kernel: _convolve(x, kernel, padding), kernel)(g)
    return gradient
