"""What may be compared, and the interval of a paired difference."""

import math

import pytest
from scipy import stats

from hvq_jax.errors import UserError
from studies.comparison import common_place, compare, mean_difference, name_place

HERE = {"devices": "1 × cpu", "jax": "0.10.2"}


def rows(*values, **place):
    return [{"seed": seed, "mse": value, **HERE, **place} for seed, value in enumerate(values)]


def test_a_difference_is_paired_by_seed():
    first, second = rows(3.0, 5.0, 10.0), rows(1.0, 4.0, 7.0)[::-1]
    found = compare(first, second, "mse")
    test = stats.ttest_rel([3.0, 5.0, 10.0], [1.0, 4.0, 7.0]).confidence_interval(0.95)
    assert (found.mean, found.seeds) == (2.0, 3)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(tuple(test))
    assert not found.is_established  # 2 ± 2.5
    assert compare(rows(3.0, 5.1, 8.9), rows(1.0, 3.0, 7.0), "mse").is_established
    assert compare(first, rows(1.0, 4.0, 7.0, 50.0), "mse") == found  # a seed that only one has is left out


def test_one_training_establishes_nothing():
    assert mean_difference([2.0]).half_width == math.inf
    assert not mean_difference([2.0]).is_established


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (rows(1.0, 2.0), "2 seeds in common: a comparison needs 3"),
        (rows(1.0, 2.0, 3.0, devices="1 × H200"), "different devices .*1 × H200, JAX 0.10.2; 1 × cpu, JAX 0.10.2"),
        (rows(1.0, 2.0, 3.0, jax="0.11.2"), "different devices or versions of JAX"),
        ([*rows(1.0, 2.0), {**rows(0.0, 0.0, 3.0)[2], "jax": "0.11.2"}], "different devices or versions of JAX"),
        (rows(1.0, 2.0, 3.0, jax="not recorded"), "results without device or version of JAX cannot be compared"),
    ],
)
def test_other_comparisons_are_refused(second, message):
    with pytest.raises(UserError, match=message):
        compare(rows(1.0, 2.0, 3.0), second, "mse")


def test_a_result_without_a_place_is_compared_with_none():
    common_place([name_place(), name_place()])
    with pytest.raises(UserError, match="results without device"):
        common_place([{"seed": 0}])
