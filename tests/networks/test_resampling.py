"""4×4 convolutions of stride 2 and their transposes: by definition, and every form of them against the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hvq_jax.networks import resampling
from hvq_jax.networks.resampling import double_resolution, halve_resolution, kernel_gradient

sides = st.integers(1, 4)
channels = st.integers(1, 7)  # images of few and of many channels take different forms


def arrays(seed, *shapes):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def transposed_by_definition(x, kernel):
    """Tap t of input i adds to output 2i - 1 + t, in each direction."""
    batch, height, width, _ = x.shape
    out = np.zeros((batch, 2 * height + 2, 2 * width + 2, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            patch = np.einsum("bc,tuco->btuo", x[:, i, j].astype(np.float64), kernel.astype(np.float64))
            out[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += patch
    return out[:, 1:-1, 1:-1]


def assert_close(ours, theirs):
    """To 1e-5 of the largest value: the same products, added up in another order."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(np.abs(theirs).max(), 1))


@settings(max_examples=4)
@given(sides, sides, channels, channels, st.integers(0, 99))
def test_doubling_is_the_transposed_convolution(height, width, inputs, outputs, seed):
    x, kernel = arrays(seed, (2, height, width, inputs), (4, 4, inputs, outputs))
    assert_close(jax.jit(double_resolution)(x, kernel), transposed_by_definition(x, kernel))


@settings(max_examples=4)
@given(sides, sides, channels, channels, st.integers(0, 99))
def test_halving_and_doubling_are_transposes_of_each_other(height, width, inputs, outputs, seed):
    large, small, kernel = arrays(
        seed, (2, 2 * height, 2 * width, inputs), (2, height, width, outputs), (4, 4, inputs, outputs)
    )
    by_halving = np.vdot(jax.jit(halve_resolution)(large, kernel), small)
    scale = np.linalg.norm(large) * np.linalg.norm(small) * np.linalg.norm(kernel)
    assert abs(by_halving - np.vdot(large, jax.jit(double_resolution)(small, kernel.swapaxes(2, 3)))) < 1e-6 * scale
    assert abs(by_halving - np.vdot(kernel, jax.jit(kernel_gradient)(large, small))) < 1e-6 * scale


@settings(max_examples=4)
@given(sides, sides, channels, channels, st.integers(0, 99))
def test_all_forms_agree(height, width, inputs, outputs, seed):
    large, small, kernel = arrays(
        seed, (2, 2 * height, 2 * width, inputs), (2, height, width, outputs), (4, 4, inputs, outputs)
    )
    back = kernel.swapaxes(2, 3)
    for forms, arguments in (
        ((resampling._halve, resampling._halve_padded), (large, kernel)),
        ((resampling._double, resampling._double_as_product, resampling._double_in_phases), (small, back)),
        ((resampling._kernel_gradient, resampling._kernel_gradient_as_product), (large, small)),
    ):
        first, *others = (jax.jit(form)(*arguments) for form in forms)
        for other in others:
            assert_close(other, first)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 6), (6, 3), (5, 6)])
@pytest.mark.parametrize(
    ("function", "xlas_own", "side"),
    [(halve_resolution, resampling._halve, 6), (double_resolution, resampling._double, 3)],
)
def test_gradients_of_both_orders_are_those_of_xlas_own(function, xlas_own, side, inputs, outputs):
    x, kernel = arrays(0, (2, side, side + 2, inputs), (4, 4, inputs, outputs))

    def loss(convolution, x, kernel):
        return (jax.numpy.sin(convolution(x, kernel)) ** 2).sum()

    def slope(convolution, x, kernel):
        return (jax.grad(loss, 1)(convolution, x, kernel) ** 2).sum()

    for scalar in (loss, slope):
        ours = jax.jit(jax.grad(scalar, (1, 2)), static_argnums=0)(function, x, kernel)
        theirs = jax.jit(jax.grad(scalar, (1, 2)), static_argnums=0)(xlas_own, x, kernel)
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other)


def test_on_accelerators_they_are_xlas_convolutions_and_on_cpu_they_dilate_nothing():
    x, kernel = arrays(0, (1, 4, 4, 8), (4, 4, 8, 8))

    def gradients(x, kernel):
        return jax.grad(lambda x, k: (double_resolution(halve_resolution(x, k), k) ** 2).sum(), (0, 1))(x, kernel)

    def lowered(platform):
        return jax.jit(gradients).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()

    assert "lhs_dilate = [2, 2]" in lowered("cuda")
    assert "lhs_dilate = [2, 2]" in lowered("tpu")
    assert "lhs_dilate = [2, 2]" not in lowered("cpu")


def in_bfloat16(*arrays):
    return [array.astype(jnp.bfloat16) for array in arrays]


def assert_rounded_once(ours, exact):
    """Within half a unit in the last of bfloat16's eight digits; 1e-5 of the largest is float32's order of addition."""
    assert ours.dtype == jnp.bfloat16
    exact = np.asarray(exact)
    error = np.abs(ours.astype(np.float32) - exact)
    assert np.all(error <= 2**-8 * np.abs(exact) + 1e-5 * np.abs(exact).max())


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 24), (24, 3)])
def test_in_bfloat16_every_form_rounds_a_float32_sum_once(inputs, outputs):
    large, small, kernel = in_bfloat16(*arrays(0, (8, 16, 16, inputs), (8, 8, 8, outputs), (4, 4, inputs, outputs)))
    exact = [array.astype(np.float32) for array in (large, small, kernel)]
    halved = jax.jit(resampling._halve)(exact[0], exact[2])
    for form in (resampling._halve, resampling._halve_padded, halve_resolution):
        assert_rounded_once(jax.jit(form)(large, kernel), halved)
    back = kernel.swapaxes(2, 3)
    doubled = jax.jit(resampling._double)(exact[1], exact[2].swapaxes(2, 3))
    for form in (
        resampling._double,
        resampling._double_in_phases,
        resampling._double_as_product,
        double_resolution,
    ):
        assert_rounded_once(jax.jit(form)(small, back), doubled)
    gradient = jax.jit(resampling._kernel_gradient)(exact[0], exact[1])  # sums of 512 products
    for form in (resampling._kernel_gradient, resampling._kernel_gradient_as_product, kernel_gradient):
        assert_rounded_once(jax.jit(form)(large, small), gradient)


@pytest.mark.parametrize(("function", "side"), [(halve_resolution, 4), (double_resolution, 2)])
def test_gradients_have_the_dtypes_of_what_they_are_of(function, side):
    x, kernel = in_bfloat16(*arrays(0, (1, side, side, 5), (4, 4, 5, 6)))
    exact = [array.astype(np.float32) for array in (x, kernel)]

    def total(x, kernel):
        return function(x, kernel).astype(jnp.float32).sum()

    gradients = jax.jit(jax.grad(total, (0, 1)))
    for ours, theirs in zip(gradients(x, kernel), gradients(*exact), strict=True):
        assert_rounded_once(ours, theirs)
