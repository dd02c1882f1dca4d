"""Distances of sets of features, compared with known values."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax.errors import UserError
from hvq_jax.evaluation.distances import frechet_distance, precision_and_recall

SEEDS = st.integers(0, 2**16)


def features_of(seed, count=40, size=3):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, size)) @ random.normal(size=(size, size)) + random.normal(size=size)


def whitened(x):
    """Return features with exactly zero mean and unit covariance."""
    x = x - x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


@given(SEEDS, st.lists(st.floats(0.1, 3), min_size=3, max_size=3), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_of_gaussians_with_one_set_of_axes_it_is_what_the_formula_gives(seed, scales, shift):
    white = whitened(features_of(seed))
    expected = np.square(shift).sum() + np.square(np.array(scales) - 1).sum()
    assert frechet_distance(white, whitened(features_of(seed + 1)) * scales + shift) == pytest.approx(
        expected, abs=1e-8
    )


@given(SEEDS)
def test_it_is_symmetric_and_does_not_see_rotations(seed):
    a, b = features_of(seed), features_of(seed + 1, count=50)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    distance = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-6)


def test_a_feature_that_never_changes_is_no_trouble():
    a, b = features_of(0), features_of(1)
    a[:, 0] = b[:, 0] = 0
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(a[:, 1:], b[:, 1:]))


def test_precision_and_recall_of_points_on_a_line():
    real, drawn = np.arange(10.0)[:, None], np.array([0.2, 1.1, 4.4, 30, 31, 32, 33, 34])[:, None]
    # Balls about the real ones reach 2 or 3 to either side: three drawn ones are inside. Those of the first three drawn
    # reach 29.8, 28.9 and 25.6, and hold all real ones.
    assert precision_and_recall(real, drawn) == (3 / 8, 1.0)
    assert precision_and_recall(real, real + 100) == (0.0, 0.0)
    assert precision_and_recall(real, real) == (1.0, 1.0)


def test_many_are_compared_in_parts():
    real, drawn = features_of(0, count=1203), features_of(0, count=1203)[::2]
    precision, recall = precision_and_recall(real, drawn)
    assert precision == 1.0
    assert 0.9 < recall <= 1.0


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (np.ones((3, 2)), np.ones((3, 4)), "N and M at least 2"),
        (np.ones((1, 2)), np.ones((3, 2)), "N and M at least 2"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "not all finite"),
    ],
)
def test_other_features_are_refused(a, b, says):
    with pytest.raises(UserError, match=says):
        frechet_distance(a, b)


def test_too_few_for_their_neighbours_are_refused():
    with pytest.raises(UserError, match="3 neighbours need more"):
        precision_and_recall(np.ones((3, 2)), np.ones((9, 2)))
