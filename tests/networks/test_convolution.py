"""The convolution with a custom backward pass against XLA's."""

import os
import subprocess
import sys

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from hvq_jax.devices.xla import knows_options
from hvq_jax.networks.convolution import convolve
from hvq_jax.networks.layers import Conv


def plain(x, kernel, padding):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def value_and_gradients(function, x, kernel, cotangent, padding):
    value, gradient = jax.vjp(lambda x, kernel: function(x, kernel, padding), x, kernel)
    return value, *gradient(cotangent)


compiled = jax.jit(value_and_gradients, static_argnums=(0, 4))


@settings(max_examples=12, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel_size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(*[st.tuples(st.integers(-1, 3), st.integers(-1, 3))] * 2),
    seed=st.integers(0, 2**31),
)
def test_value_and_gradients_are_those_of_the_plain_convolution(sides, kernel_size, padding, seed):
    # No more padding than the kernel reaches: else its outermost outputs would see nothing.
    padding = tuple((min(a, k - 1), min(b, k - 1)) for (a, b), k in zip(padding, kernel_size, strict=True))
    outputs = [side + sum(pads) - k + 1 for side, pads, k in zip(sides, padding, kernel_size, strict=True)]
    if min(outputs) < 1:
        return
    # Small integers: every product and sum is exact, so nothing depends on the order of additions.
    draw = np.random.default_rng(seed)
    x, kernel, cotangent = (
        draw.integers(-4, 5, shape).astype(np.float32)
        for shape in ((2, *sides, 3), (*kernel_size, 3, 2), (2, *outputs, 2))
    )
    ours = compiled(convolve, x, kernel, cotangent, padding)
    theirs = compiled(plain, x, kernel, cotangent, padding)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_both_platforms_forms_agree(monkeypatch):
    draw = np.random.default_rng(0)
    x, kernel, cotangent = (
        jnp.asarray(draw.standard_normal(shape), jnp.float32) for shape in ((2, 5, 4, 3), (3, 3, 3, 6), (2, 5, 4, 6))
    )
    padding = ((1, 1), (1, 1))
    on_cpu = value_and_gradients(convolve, x, kernel, cotangent, padding)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, cpu, default: default(*arguments))
    elsewhere = value_and_gradients(convolve, x, kernel, cotangent, padding)
    for a, b in zip(on_cpu, elsewhere, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_bfloat16_gradients_are_bfloat16():
    x, kernel = jnp.ones((1, 3, 3, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 2), jnp.bfloat16)
    value, *gradients = value_and_gradients(convolve, x, kernel, jnp.ones_like(x), ((1, 1), (1, 1)))
    assert {array.dtype for array in (value, *gradients)} == {jnp.bfloat16.dtype}


def test_the_layer_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="stride 1"):
        Conv(2, (3, 3), strides=2).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))


def test_materialised_arrays_are_not_fused_with_what_uses_them():
    """With the options of `devices.xla`, in a new process because XLA reads them once."""
    program = (
        "from hvq_jax.devices.xla import set_cpu_options; set_cpu_options()\n"
        "import jax, jax.numpy as jnp\n"
        "from hvq_jax.networks.convolution import materialised\n"
        "x = jnp.ones((4, 6))\n"
        "for keep in (lambda x: x, lambda x: materialised(x)[0]):\n"
        "    text = jax.jit(lambda x: keep(2 * x).T * 3).lower(x).compile().as_text()\n"
        "    print(text.count('opt-barrier('))\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    plain, kept = done.stdout.split()
    assert plain == "0"
    assert kept == "1" or not knows_options()  # the option is set for versions of jaxlib that were tested
