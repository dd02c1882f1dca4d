"""BD-rate: how many more bits one curve of rate and distortion takes than another at the same quality.

Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, but with piecewise cubics
(PCHIP, which is monotone) in place of his one polynomial: the logarithm of the rate is interpolated over the quality in
dB, and its mean difference over the qualities that both curves reach is turned into a percentage. −10 % means a tenth
fewer bits.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator


@dataclasses.dataclass(frozen=True)
class BDRate:
    """The mean difference of rate between two curves, over the qualities that both reach."""

    change: float  # -0.1: a tenth fewer bits than the anchor
    low: float  # dB, the qualities of the comparison
    high: float
    share: float  # of the range of the curve's own qualities


@dataclasses.dataclass(frozen=True)
class Curve:
    """Points in the order of their rates, each with a higher quality than those before."""

    rates: np.ndarray  # bits, ascending
    qualities: np.ndarray  # dB, ascending

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> "Curve":
        """Return the curve of points (bits, MSE on [-1, 1]), without those that cost more and are no better.

        >>> Curve.of([(100.0, 0.04), (200.0, 0.004), (300.0, 0.005)]).qualities.round(9).tolist()
        [20.0, 30.0]
        """
        kept: list[tuple[float, float]] = []
        for bits, error in sorted((bits, -decibels(error)) for bits, error in points):
            if not kept or -error > kept[-1][1]:
                kept.append((bits, -error))
        rates, qualities = np.array(kept, float).reshape(-1, 2).T
        return cls(rates, qualities)


def decibels(error: float) -> float:
    """Return the PSNR in dB of an MSE on [-1, 1]: that of the mean error, not the mean over images.

    >>> decibels(0.04)
    20.0
    """
    return -10 * math.log10(error / 4)


def bd_rate(anchor: Curve, curve: Curve) -> BDRate | None:
    """Return the BD-rate of `curve` against `anchor`; None if they share no range of qualities.

    >>> twice = Curve(np.array([20.0, 200.0]), np.array([20.0, 30.0]))
    >>> round(bd_rate(Curve(np.array([10.0, 100.0]), np.array([20.0, 30.0])), twice).change, 9)
    1.0
    """
    if min(len(anchor.rates), len(curve.rates)) < 2:
        return None
    low = max(anchor.qualities[0], curve.qualities[0])
    high = min(anchor.qualities[-1], curve.qualities[-1])
    if not low < high:
        return None
    areas = [
        PchipInterpolator(each.qualities, np.log(each.rates)).integrate(low, high) / (high - low)
        for each in (curve, anchor)
    ]
    own = curve.qualities[-1] - curve.qualities[0]
    return BDRate(math.expm1(areas[0] - areas[1]), float(low), float(high), float((high - low) / own))


def bits_at(curve: Curve, quality: float) -> float | None:
    """Return the rate at which a curve reaches a quality in dB; None outside its range."""
    if len(curve.rates) < 2 or not curve.qualities[0] <= quality <= curve.qualities[-1]:
        return None
    return math.exp(PchipInterpolator(curve.qualities, np.log(curve.rates))(quality))


def common_range(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """Return the range of qualities, in dB, that all curves reach; None if there is none."""
    low, high = max(each.qualities[0] for each in curves), min(each.qualities[-1] for each in curves)
    return (float(low), float(high)) if low < high else None
