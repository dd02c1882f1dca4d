"""The product with a dense layer's kernel, whose gradient XLA computes fast on CPU.

The gradient of the kernel is the product of the transposed input with the gradient of the output. By default XLA fuses
the transposition with what computes the input or the gradient, such as a softmax, and evaluates that again in
transposed order. With both in memory the product reads them as they are.
"""

import jax

from hvq_jax.fusion import materialised


@jax.custom_vjp
def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply `x` `[..., I]` with `kernel` `[I, O]`."""
    return x @ kernel


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.lax.platform_dependent(*saved, g, cpu=_gradients_on_cpu, default=_gradients)


multiply.defvjp(lambda x, kernel: (multiply(x, kernel), (x, kernel)), _backward)


def _gradients(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    return g @ kernel.T, x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])


def _gradients_on_cpu(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, g = materialised(x, g)
    return _gradients(x, kernel, g)
