"""Temperature, top-k and top-p against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from hvq_jax.priors.filtering import filter_logits

NUM_CODES = 7
any_logits = hnp.arrays(np.float32, (2, NUM_CODES), elements=st.floats(-8, 8, width=16))
# A few values only, so that most draws have ties.
tied_logits = hnp.arrays(np.float32, (2, NUM_CODES), elements=st.sampled_from([-1.0, -0.0, 0.0, 2.0]))
examples = settings(max_examples=60, deadline=None)


def probabilities(logits):
    exact = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return exact / exact.sum(axis=-1, keepdims=True)


def kept(logits, **options):
    return np.isfinite(filter_logits(jnp.asarray(logits), **options))


@examples
@given(logits=any_logits | tied_logits, top_k=st.integers(1, NUM_CODES + 2))
def test_top_k_keeps_the_k_most_probable_and_of_equals_the_lower_index(logits, top_k):
    first = np.argsort(-logits, axis=-1, kind="stable")[:, :top_k]
    expected = np.zeros(logits.shape, bool)
    np.put_along_axis(expected, first, True, axis=-1)
    np.testing.assert_array_equal(kept(logits, top_k=top_k), expected)


@examples
@given(logits=any_logits | tied_logits, top_p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_reaches_the_mass(logits, top_p):
    for row, keep, p in zip(logits, kept(logits, top_p=top_p), probabilities(logits), strict=True):
        num_kept = keep.sum()
        first = np.argsort(-row, kind="stable")[:num_kept]
        assert num_kept >= 1
        assert keep[first].all()
        # Float32 sums decide what to keep: the exact mass may miss the bound by their rounding.
        assert p[first].sum() >= top_p - 1e-6
        assert p[first[:-1]].sum() <= top_p + 1e-6


def test_top_p_measures_mass_after_top_k():
    logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(kept(logits, top_p=0.5), [False, False, True, True])
    # Of the two left by top-k the first has 0.4 / 0.7.
    np.testing.assert_array_equal(kept(logits, top_k=2, top_p=0.5), [False, False, False, True])


@examples
@given(logits=any_logits, temperature=st.floats(0.1, 10.0))
def test_temperature_divides_the_logits(logits, temperature):
    actual = probabilities(filter_logits(jnp.asarray(logits), temperature=temperature))
    # Quotients up to 160 in float32 carry an error of 1e-5.
    np.testing.assert_allclose(actual, probabilities(logits / np.float64(temperature)), atol=2e-5)


def test_top_p_comes_after_temperature():
    logits = jnp.log(jnp.array([0.6, 0.4]))
    np.testing.assert_array_equal(kept(logits, top_p=0.65), [True, True])
    # At temperature 1/2 the first has 0.36 / 0.52.
    np.testing.assert_array_equal(kept(logits, temperature=0.5, top_p=0.65), [True, False])


@pytest.mark.parametrize("temperature", [0, 1e-40])
def test_temperature_zero_keeps_the_most_probable_code_alone(temperature):
    logits = jnp.array([[0.0, 3.0, 1.0, 3.0], [5.0, 3.0, 1.0, 3.0]])
    expected = [[False, True, False, False], [True, False, False, False]]
    np.testing.assert_array_equal(kept(logits, temperature=temperature), expected)
    np.testing.assert_array_equal(kept(logits, temperature=temperature, top_p=0.5), expected)


def test_a_temperature_that_overflows_the_logits_still_keeps_the_best():
    filtered = filter_logits(jnp.array([40.0, 30.0, -20.0]), temperature=1e-38, top_p=0.9)
    np.testing.assert_array_equal(filtered, [0.0, -np.inf, -np.inf])


def test_without_options_the_distribution_stays_as_it_is():
    logits = jnp.array([[0.5, -1.25, 3.0], [-np.inf, 2.0, 2.0]])
    filtered = filter_logits(logits.astype(jnp.bfloat16))
    assert filtered.dtype == jnp.float32
    np.testing.assert_allclose(probabilities(filtered), probabilities(logits), rtol=1e-6)


def test_filtering_under_jit_is_the_same_on_any_leading_shape():
    options = {"temperature": 0.7, "top_k": 5, "top_p": 0.8}
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 3, 4, NUM_CODES)), jnp.float32)
    jitted = jax.jit(functools.partial(filter_logits, **options))(logits)
    eager = filter_logits(logits.reshape(-1, NUM_CODES), **options).reshape(logits.shape)
    np.testing.assert_array_equal(np.isfinite(jitted), np.isfinite(eager))
    # A compiler may divide by multiplying with the reciprocal.
    np.testing.assert_allclose(jitted, eager, rtol=1e-6)
