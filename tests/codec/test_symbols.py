"""Symbols and residuals as decisions: exact, at the cost of their probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import logsumexp
from scipy.stats import norm

from hvq_jax.codec.decisions import DecisionReader, DecisionWriter, Grid
from hvq_jax.codec.mixtures import Mixture, code_residuals, num_digits
from hvq_jax.codec.symbols import code_symbols
from hvq_jax.errors import UserError


class Information:
    """Decisions whose information is added up instead of written."""

    def __init__(self):
        self.bits = 0.0

    def decide(self, upper, lower, bits):
        self.bits -= np.log2(np.where(bits, upper, lower) / (upper + lower)).sum()
        return bits


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 10**6), st.floats(0.1, 50))
def test_symbols_return_and_cost_their_information(num_symbols, seed, spread):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (9, num_symbols)).astype(np.float32)
    symbols = rng.integers(0, num_symbols, 9)
    information = Information()
    code_symbols(information, logits, symbols)
    log_p = logits - logsumexp(logits.astype(float), axis=-1, keepdims=True)
    np.testing.assert_allclose(information.bits, -log_p[np.arange(9), symbols].sum() / np.log(2), rtol=1e-6, atol=1e-6)
    writer = DecisionWriter(Grid())
    code_symbols(writer, logits, symbols)
    read = code_symbols(DecisionReader(writer.finish(), Grid()), logits, None)
    np.testing.assert_array_equal(read, symbols)


def _mixture(rng, count, components, channels):
    weights, means = rng.normal(size=(count, components)), rng.normal(0, 5, (count, components, channels))
    return Mixture(weights, means, rng.uniform(0.5, 6, means.shape))


def test_residuals_cost_the_mixture_of_their_cells():
    rng = np.random.default_rng(0)
    mixture, residuals = _mixture(rng, 7, 3, 4), rng.normal(0, 5, (7, 4)).round().astype(int)
    information = Information()
    code_residuals(information, mixture, 12, residuals)
    places = residuals[:, None], mixture.means, mixture.deviations
    cells = norm.cdf(places[0] + 0.5, *places[1:]) - norm.cdf(places[0] - 0.5, *places[1:])
    log_weights = mixture.log_weights - logsumexp(mixture.log_weights, axis=-1, keepdims=True)
    expected = -logsumexp(log_weights + np.log(cells).sum(-1), axis=-1).sum() / np.log(2)
    np.testing.assert_allclose(information.bits, expected, rtol=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 60, 2**24]))
def test_residuals_of_any_size_return(seed, largest):
    rng = np.random.default_rng(seed)
    mixture = _mixture(rng, 3, 2, 2)
    residuals = rng.integers(-largest, largest + 1, (3, 2))
    residuals[0, 0] = largest
    digits = num_digits(residuals)
    writer = DecisionWriter(Grid())
    code_residuals(writer, mixture, digits, residuals)
    stream = writer.finish()
    np.testing.assert_array_equal(code_residuals(DecisionReader(stream, Grid()), mixture, digits, None), residuals)
    assert 8 * len(stream) < 6 * 1.5 * 21 * (digits + 1) + 8  # no residual costs more than all improbable decisions


def test_the_digits_are_those_of_the_range():
    for residuals, digits in (([0], 0), ([-1], 0), ([1], 1), ([-2], 1), ([2], 2), ([127, -128], 7), ([128], 8)):
        assert num_digits(np.array(residuals)) == digits


def test_probabilities_that_are_not_finite_are_an_error():
    with pytest.raises(UserError, match="not finite"):
        code_symbols(DecisionWriter(Grid()), np.array([[np.nan, 0.0]]), np.array([1]))
