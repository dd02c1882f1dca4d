"""Convolutions of stride 1 with a backward pass that XLA runs fast on CPU.

The gradient of the kernel is a convolution of the image with the gradient of the output, for which XLA on CPU first
makes the channels the batch of both. Left alone, it fuses that transposition with whatever computes them, the whole of
a batch normalisation say, and evaluates it in the transposed order, where neighbouring numbers are pages apart: ten
times as long as to compute them and then to transpose them. `materialised` keeps the two apart.
"""

from typing import Any

import jax

_LAYOUT = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]


def materialised(*arrays: jax.Array) -> Any:
    """The arrays as they are, computed before what uses them: XLA does not fuse across.

    On CPU this takes an option of XLA, see `training/xla.py`; without it the results are the same, only later.
    """
    return jax.lax.optimization_barrier(arrays)


def convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """The convolution of `x` `[B, h, w, I]` with `kernel` `[kh, kw, I, O]`, zeros before and after rows and columns."""

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
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)


def _image_gradient(kernel: jax.Array, g: jax.Array, padding: Padding) -> jax.Array:
    """A convolution of `g` with the kernel turned round."""
    (turned,) = materialised(kernel[::-1, ::-1])
    (turned,) = materialised(turned.swapaxes(2, 3))
    rest = [(size - 1 - low, size - 1 - high) for size, (low, high) in zip(kernel.shape, padding, strict=False)]
    return _convolve(g, turned, rest)


def _kernel_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array, padding: Padding) -> jax.Array:
    (gradient,) = jax.linear_transpose(lambda kernel: _convolve(x, kernel, padding), kernel)(g)
    return gradient
