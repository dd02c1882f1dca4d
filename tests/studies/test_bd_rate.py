"""BD-rates that can be computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from studies.frontier.bd_rate import Curve, bd_rate, decibels

POINTS = [(100.0, 0.04), (150.0, 0.02), (300.0, 0.01), (500.0, 0.008)]


@given(st.floats(0.1, 10.0))
def test_a_curve_whose_rates_are_multiplied_by_a_factor_differs_by_it(factor):
    curve = Curve.of([(factor * bits, error) for bits, error in POINTS])
    found = bd_rate(Curve.of(POINTS), curve)
    assert found.change == pytest.approx(factor - 1, abs=1e-9)
    assert found.share == pytest.approx(1)
    back = bd_rate(curve, Curve.of(POINTS))
    assert (1 + found.change) * (1 + back.change) == pytest.approx(1)


def test_between_two_points_the_logarithm_of_the_rate_is_linear_in_decibels():
    """From 20 to 30 dB one curve takes 10 to 1000 bits, the other 100 all along: e² at one end, e⁻² at the other."""
    steep = Curve(np.array([10.0, 1000.0]), np.array([20.0, 30.0]))
    flat = Curve(np.array([100.0, 100.0 + 1e-9]), np.array([20.0, 30.0]))
    assert bd_rate(flat, steep).change == pytest.approx(0, abs=1e-9)
    # Over the upper half, 25 to 30 dB, its rate is 100 to 1000, in the mean of the logarithms 10^0.5 times as much.
    upper = Curve(np.array([100.0, 100.0 + 1e-9]), np.array([25.0, 35.0]))
    found = bd_rate(upper, steep)
    assert found.change == pytest.approx(math.sqrt(10) - 1)
    assert (found.low, found.high, found.share) == (25.0, 30.0, 0.5)


def test_curves_of_other_qualities_are_not_compared():
    low, high = Curve.of([(10, 0.4), (20, 0.3)]), Curve.of([(100, 0.04), (200, 0.03)])
    assert bd_rate(low, high) is None
    assert bd_rate(low, Curve.of([(10, 0.35)])) is None


def test_points_that_cost_more_and_are_no_better_are_left_out():
    worse = [*POINTS, (320.0, 0.011), (140.0, 0.05)]
    curve = Curve.of(worse)
    assert curve.rates.tolist() == [bits for bits, _ in POINTS]
    assert (np.diff(curve.qualities) > 0).all()
    assert bd_rate(Curve.of(POINTS), curve).change == pytest.approx(0)


def test_decibels_are_of_images_on_0_to_1():
    assert decibels(4 * 0.01) == pytest.approx(20)
