"""The dense layers' product against einsum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.networks.product import multiply


def value_and_gradients(function, x, kernel, g):
    value, gradients = jax.vjp(function, x, kernel)
    return value, *gradients(g)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_value_and_gradients_are_those_of_the_plain_product(shape, dtype):
    # Small integers: every product and sum is exact.
    draw = np.random.default_rng(0)
    x, kernel, g = (jnp.asarray(draw.integers(-2, 3, s), dtype) for s in ((*shape, 3), (3, 2), (*shape, 2)))
    ours = jax.jit(lambda *given: value_and_gradients(multiply, *given))(x, kernel, g)
    plain = value_and_gradients(lambda x, kernel: jnp.einsum("...i,io->...o", x, kernel), x, kernel, g)
    for found, expected in zip(ours, plain, strict=True):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


def test_only_on_cpu_are_there_barriers():
    given = [jnp.ones(shape) for shape in ((4, 3), (3, 2), (4, 2))]
    traced = jax.jit(lambda *given: value_and_gradients(multiply, *given)).trace(*given)
    barriers = {
        name: "optimization_barrier" in traced.lower(lowering_platforms=(name,)).as_text()
        for name in ("cpu", "cuda", "tpu")
    }
    assert barriers == {"cpu": True, "cuda": False, "tpu": False}
