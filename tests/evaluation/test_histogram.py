"""The baseline of a prior: frequencies of codes, as probabilities."""

import itertools

import numpy as np
import pytest

from hvq_jax.evaluation.histogram import histogram_nats


def draw_codes(seed, count):
    """Codes of 3 that depend on class and position, and their labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    likely = (labels[:, None] + np.arange(4)) % 3
    codes = np.where(random.random((count, 4)) < 0.8, likely, random.integers(0, 3, (count, 4)))
    return codes.reshape(count, 2, 2), labels


def test_the_histogram_comes_to_the_entropy_of_independent_positions():
    splits = [draw_codes(seed, count) for seed, count in enumerate((20_000, 2_000, 20_000))]
    p = np.array([0.8 + 0.2 / 3, 0.2 / 3, 0.2 / 3])
    nats = histogram_nats(*splits, num_codes=3)
    assert nats == pytest.approx(-4 * (p * np.log(p)).sum(), rel=0.02)
    several = [(codes.reshape(-1, 1, 2, 2), labels) for codes, labels in splits]
    assert histogram_nats(*several, num_codes=3) == pytest.approx(nats, rel=0.01)


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2)])
def test_the_histogram_is_a_probability(shape):
    """Of all latents that there are: it sums to 1, also over what was never seen."""
    train, validation = ((codes.reshape(-1, *shape), labels) for codes, labels in (draw_codes(0, 7), draw_codes(1, 5)))
    total = sum(
        np.exp(-histogram_nats(train, validation, (np.array(codes).reshape(1, *shape), np.array([1])), 3))
        for codes in itertools.product(range(3), repeat=4)
    )
    assert total == pytest.approx(1)


def test_a_class_that_is_not_in_training_has_the_frequencies_of_all():
    train, validation = draw_codes(0, 50), draw_codes(1, 10)
    found = histogram_nats(train, validation, (train[0][:1], np.array([5])), 3)
    everywhere = (np.bincount(train[0].ravel(), minlength=3) + 1) / (train[0].size + 3)
    assert found == pytest.approx(-np.log(everywhere[train[0][0]]).sum())
