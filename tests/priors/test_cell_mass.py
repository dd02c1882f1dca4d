"""The mass of a normal distribution in a cell, and its gradient, against float64."""

import math

import jax
import numpy as np
from hypothesis import given, strategies as st
from numpy.polynomial.legendre import leggauss
from scipy.special import erfc, erfcx
from scipy.stats import norm

from hvq_jax.priors.cell_mass import log_cell_mass

STEP = 0.5
NODES, WEIGHTS = leggauss(20)


@jax.jit
def mass_and_gradients(offsets, scales):
    gradients = jax.grad(lambda offsets, scales: log_cell_mass(offsets, scales, STEP).sum(), (0, 1))
    return log_cell_mass(offsets, scales, STEP), gradients(offsets, scales)


def mills_ratio(x):
    return math.sqrt(math.pi / 2) * erfcx(x / math.sqrt(2))


@np.errstate(over="ignore", divide="ignore")  # each formula where it is not chosen
def exact(offsets, scales):
    """Return log mass, its gradients, and the size of the terms that the gradient by the scale is the sum of.

    With E = mass / φ(a), an integral over the cell that starts at a, which quadrature gives for cells that are not too
    wide and Mills ratios for the others; but a cell around the mean holds all except what is beyond its edges.
    """
    offsets, scales = offsets.astype(np.float64), scales.astype(np.float64)
    x, width = np.abs(offsets) / scales, STEP / scales
    a, b = (np.abs(offsets) - STEP / 2) / scales, (np.abs(offsets) + STEP / 2) / scales
    rest = np.exp(-width * x)  # φ(b) / φ(a)
    t = (NODES + 1) / 2 * width[:, None]
    by_quadrature = (WEIGHTS / 2 * width[:, None] * np.exp(-a[:, None] * t - t * t / 2)).sum(axis=1)
    short = width * (x + width) < 5
    ratio = np.where(short, by_quadrature, mills_ratio(np.maximum(a, 0)) - rest * mills_ratio(b))
    log_mass = norm.logpdf(a) + np.log(ratio)
    around = ~short & (a < 0)
    of_around = np.log1p(-0.5 * (erfc(-a / math.sqrt(2)) + erfc(b / math.sqrt(2))))
    log_mass = np.where(around, of_around, log_mass)
    edge = np.where(around, np.exp(norm.logpdf(a) - of_around), 1 / ratio)  # φ(a) / mass
    by_offset = np.sign(offsets) * edge * np.expm1(-width * x) / scales
    return log_mass, by_offset, edge * (a - b * rest) / scales, edge * (np.abs(a) + b * rest) / scales


def logarithms(low, high):
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


any_cell = st.tuples(logarithms(-4, 6) | st.just(0.0), logarithms(-4, 4), st.booleans())


@given(st.lists(any_cell, min_size=64, max_size=64))
def test_masses_and_gradients_are_right_from_the_mean_to_a_million_deviations(cells):
    far, widths, above = (np.array(column) for column in zip(*cells, strict=True))
    scales = (STEP / widths).astype(np.float32)
    for offsets in (far * scales, STEP / 2 + far.clip(max=3) * scales):  # anywhere; about the edge
        offsets = (np.where(above, 1, -1) * offsets).astype(np.float32)
        log_mass, (by_offset, by_scale) = mass_and_gradients(offsets, scales)
        expected = exact(offsets, scales)
        tiny = 1e-30  # float32 ends near
        np.testing.assert_allclose(log_mass, expected[0], rtol=5e-5, atol=tiny)
        np.testing.assert_allclose(by_offset, expected[1], rtol=1e-4, atol=tiny / scales.min())
        # Zero at the scale of greatest mass, where its two terms cancel.
        assert (np.abs(by_scale - expected[2]) <= 1e-4 * expected[3] + tiny / scales).all()


def test_the_reference_is_that_of_scipy_where_it_keeps_digits():
    far, scales = (x.ravel() for x in np.meshgrid(np.linspace(0, 4, 9), np.array([0.05, 0.3, 1, 3, 25])))
    offsets = far * scales
    masses = norm.cdf((offsets + STEP / 2) / scales) - norm.cdf((offsets - STEP / 2) / scales)
    log_mass, by_offset, by_scale, _ = exact(offsets, scales)
    np.testing.assert_allclose(np.exp(log_mass), masses, rtol=1e-9)
    small = 1e-5
    moved = [exact(offsets, scales * (1 + sign * small))[0] for sign in (1, -1)]
    np.testing.assert_allclose(by_scale * scales, (moved[0] - moved[1]) / (2 * small), rtol=1e-4, atol=1e-6)
    moved = [exact(np.abs(offsets + sign * small * scales), scales)[0] for sign in (1, -1)]
    np.testing.assert_allclose(by_offset * scales, (moved[0] - moved[1]) / (2 * small), rtol=1e-4, atol=1e-6)


def test_far_away_the_gradient_pulls_the_mean_and_the_scale_by_what_is_missing():
    """The nearer edge is all that counts there: -(a/σ)²/2 in units of length."""
    offsets, scales = np.array([1e4, 3e4], np.float32), np.array([0.5, 1.0], np.float32)
    edges = offsets - STEP / 2
    log_mass, (by_offset, by_scale) = mass_and_gradients(offsets, scales)
    np.testing.assert_allclose(log_mass, -0.5 * (edges / scales) ** 2, rtol=1e-5)
    np.testing.assert_allclose(by_offset, -edges / scales**2, rtol=1e-5)
    np.testing.assert_allclose(by_scale, edges**2 / scales**3, rtol=1e-5)


def test_masses_and_gradients_are_finite_at_any_distance():
    far, scales = (x.ravel() for x in np.meshgrid([40, 1e3, 1e5, 1e9], [0.05, 0.1, 0.3, 0.5, 0.8, 1, 3, 25, 1e3]))
    scales = scales.astype(np.float32)
    log_mass, gradients = mass_and_gradients((far * scales).astype(np.float32), scales)
    np.testing.assert_allclose(log_mass, -0.5 * far**2, rtol=0.4)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
