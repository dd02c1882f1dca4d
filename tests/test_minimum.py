import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, strategies as st

from hvq_jax.minimum import _in_one_pass, min_and_argmin

numbers = st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 1.0, np.inf])


@given(st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=3, max_size=3))
def test_the_first_of_the_smallest_is_found(rows):
    x = np.array(rows, np.float32)
    smallest, indices = jax.jit(min_and_argmin)(x)
    np.testing.assert_array_equal(smallest, x.min(axis=-1))
    np.testing.assert_array_equal(indices, x.argmin(axis=-1))
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(jax.jit(_in_one_pass)(x)[1], indices)


def test_what_is_not_a_number_has_an_index_within_bounds():
    x = np.array([[np.nan] * 4, [1.0, np.nan, 0.0, 2.0]], np.float32)
    assert set(jax.jit(min_and_argmin)(x)[1].tolist()) <= {0, 1, 2, 3}


def test_any_number_of_axes():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 9)).astype(np.float32)
    np.testing.assert_array_equal(min_and_argmin(x)[1], x.argmin(axis=-1))
    assert min_and_argmin(x[0, 0, 0])[1] == x[0, 0, 0].argmin()
