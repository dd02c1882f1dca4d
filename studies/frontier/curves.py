"""The curves of the frontier, from stored results: by rate, decoder and seed, and compared with `vq`."""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from studies.comparison import Difference, common_place, mean_difference
from studies.frontier.bd_rate import BDRate, Curve, bd_rate
from studies.frontier.cells import Point, Training
from studies.frontier.results import Bits, PointResult, Quality, read_point

ANCHOR = "vq"
FEWEST_POINTS = 3  # of a curve that is compared

DECODERS: dict[str, Callable[[PointResult], Quality]] = {
    "fine-tuned": lambda found: found["fine_tuned"],
    "as trained": lambda found: found["as_trained"],
}
RATES: dict[str, Callable[[PointResult], float]] = {
    "coded": lambda found: found["coded_bits"],
    "prior": lambda found: total(found["prior_bits"]),
    "static": lambda found: total(found["static_bits"]),
}


def total(bits: Bits) -> float:
    """Return the bits of codes and continuous parts together."""
    return bits["codes"] + bits["continuous"]


@dataclasses.dataclass(frozen=True)
class Made:
    """A point that has a result."""

    training: Training
    point: Point
    result: PointResult

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return self.training.cell.seed


def read_all(trainings: list[Training], results: Path) -> list[Made]:
    """Return the points of `trainings` that have results, in their order."""
    return [
        Made(training, point, found)
        for training in trainings
        for point in training.points
        if (found := read_point(training, point, results)) is not None
    ]


def by_curve(made: list[Made]) -> dict[str, list[Made]]:
    """Return the points of each curve, which are of all seeds."""
    curves: dict[str, list[Made]] = defaultdict(list)
    for each in made:
        curves[each.point.curve].append(each)
    return dict(curves)


def comparable(points: list[Made]) -> dict[int, list[Made]]:
    """Return the points of one curve by seed: of the seeds with enough points, those that all of these seeds have."""
    seeds = sorted({each.seed for each in points})
    values = {seed: {each.point.value for each in points if each.seed == seed} for seed in seeds}
    enough = [seed for seed in seeds if len(values[seed]) >= FEWEST_POINTS]
    shared = set.intersection(*(values[seed] for seed in enough)) if enough else set()
    return {seed: [each for each in points if each.seed == seed and each.point.value in shared] for seed in enough}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The BD-rates of a curve against `vq`, one per seed that both have."""

    by_seed: Mapping[int, BDRate]

    @property
    def change(self) -> Difference:
        """Their mean, and the half-width of its interval: infinite for one seed."""
        return mean_difference([found.change for found in self.by_seed.values()])

    @property
    def low(self) -> float:
        """The lowest quality that is compared for every seed, in dB."""
        return max(found.low for found in self.by_seed.values())

    @property
    def high(self) -> float:
        """The highest."""
        return min(found.high for found in self.by_seed.values())

    @property
    def share(self) -> float:
        """The mean share of the curve's range of qualities that is compared."""
        return statistics.mean(found.share for found in self.by_seed.values())


def compare(made: list[Made], curve: str, rate: str, decoder: str) -> Comparison | None:
    """Return a curve compared with `vq`, seed by seed; None where no seed has both in a common range of qualities.

    Raises UserError if their results are from different devices or versions of JAX.
    """
    curves = by_curve(made)
    of_anchor, of_curve = (comparable(curves.get(name, [])) for name in (ANCHOR, curve))
    seeds = sorted(of_anchor.keys() & of_curve.keys())
    common_place(each.result for points in (of_anchor, of_curve) for seed in seeds for each in points[seed])
    found = {seed: bd_rate(*(line(points[seed], rate, decoder) for points in (of_anchor, of_curve))) for seed in seeds}
    known = {seed: each for seed, each in found.items() if each is not None}
    return Comparison(known) if known else None


def line(points: list[Made], rate: str, decoder: str) -> Curve:
    """Return points of one seed as a curve of rate and distortion."""
    return Curve.of((RATES[rate](each.result), DECODERS[decoder](each.result)["mse"]) for each in points)


@dataclasses.dataclass(frozen=True)
class Mean:
    """The means over seeds of one place on a curve."""

    value: str
    bits: float
    mse: float
    psnr: float
    ssim: float
    seeds: int


def means(points: list[Made], rate: str, decoder: str) -> list[Mean]:
    """Return the points of one curve, each the mean over its seeds, from the lowest rate to the highest."""
    places: dict[str, list[PointResult]] = defaultdict(list)
    for each in points:
        places[each.point.value].append(each.result)
    found = []
    for value, results in places.items():
        quality = [DECODERS[decoder](result) for result in results]
        found.append(
            Mean(
                value,
                bits=statistics.mean(RATES[rate](result) for result in results),
                mse=statistics.mean(each["mse"] for each in quality),
                psnr=statistics.mean(each["psnr"] for each in quality),
                ssim=statistics.mean(each["ssim"] for each in quality),
                seeds=len(results),
            )
        )
    return sorted(found, key=lambda each: each.bits)
