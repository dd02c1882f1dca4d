"""Dense layers multiply by panels of their kernels as they do by the kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.networks.layers import Dense
from hvq_jax.networks.panels import with_panels

ROWS, INNER = 5, 48


def made(outer: int, dtype: str = "float32") -> tuple[Dense, dict, jax.Array]:
    layer, x = Dense(outer, dtype=dtype), jax.random.normal(jax.random.key(0), (ROWS, INNER))
    params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
    return layer, {"params": {**params, "bias": jnp.arange(outer, dtype=jnp.float32)}}, x


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("outer", [128, 192])
def test_outputs_are_those_of_the_kernel(outer, dtype):
    layer, variables, x = made(outer, dtype)
    expected, result = jax.jit(layer.apply)(variables, x), jax.jit(layer.apply)(with_panels(variables), x)
    assert result.dtype == expected.dtype
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(np.float32(result), np.float32(expected), rtol=tolerance, atol=tolerance)


def test_on_cpu_rows_are_multiplied_by_panels_and_images_by_the_kernel():
    layer, variables, x = made(128)
    variables = with_panels(variables)
    variables["panels"]["kernel"] = 2 * variables["panels"]["kernel"]
    bias, (of_rows, of_images) = variables["params"]["bias"], (layer.apply(variables, y) for y in (x, x[None]))
    np.testing.assert_allclose(of_rows - bias, 2 * (of_images[0] - bias), rtol=1e-4, atol=1e-4)


def test_other_platforms_multiply_by_the_kernel():
    layer, variables, x = made(128)
    lowered = jax.jit(layer.apply).trace(with_panels(variables), x).lower(lowering_platforms=("cuda",))
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert [f"tensor<{INNER}x128xf32>" in line for line in products] == [True]


@pytest.mark.parametrize("outer", [64, 100])
def test_a_kernel_that_is_one_panel_or_no_number_of_them_has_none(outer):
    assert with_panels(made(outer)[1])["panels"] == {}
