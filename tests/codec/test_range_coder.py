"""Streams of decisions: exact, and at most 8 bits above their information."""

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from hvq_jax.codec.range_coder import RangeDecoder, RangeEncoder


@given(st.integers(0, 400), st.integers(0, 10**6), st.floats(1e-6, 0.5))
@example(0, 0, 0.5)
def test_a_stream_returns_its_decisions_in_its_information_and_a_byte(count, seed, least):
    rng = np.random.default_rng(seed)
    probabilities = rng.uniform(least, 1 - least, count).clip(1e-6, 1 - 1e-6)
    bits = rng.uniform(size=count) < probabilities
    encoder = RangeEncoder()
    for part in (slice(0, count // 3), slice(count // 3, count)):
        encoder.encode(bits[part], probabilities[part])
    stream = encoder.finish()
    np.testing.assert_array_equal(RangeDecoder(stream).decode(probabilities), bits)
    information = -np.log2(np.where(bits, probabilities, 1 - probabilities)).sum()
    assert 8 * len(stream) <= information + 8


def test_no_shorter_stream_returns_the_decisions():
    rng = np.random.default_rng(0)
    for count in range(1, 80):
        probabilities, bits = np.full(count, 0.5), rng.uniform(size=count) < 0.5
        encoder = RangeEncoder()
        encoder.encode(bits, probabilities)
        stream = encoder.finish()
        if stream:
            assert (RangeDecoder(stream[:-1]).decode(probabilities) != bits).any()


@pytest.mark.parametrize("count", [1, 100])
def test_certain_decisions_cost_nothing(count):
    encoder = RangeEncoder()
    encoder.encode(np.zeros(count, bool), np.full(count, 1e-6))
    assert len(encoder.finish()) <= 1
