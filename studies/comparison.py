"""Which results may be compared, and the difference between two sets of trainings.

Rules: devices and versions of JAX are never mixed, and what is called better than something else has at least three
seeds and a paired interval that excludes 0.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from scipy.stats import t as student

from hvq_jax.errors import UserError

LEAST_SEEDS = 3
CONFIDENCE = 0.95
PLACE = ("devices", "jax")  # the fields of a result that say where it is from
NOT_RECORDED = "not recorded"  # in results of before these fields were kept


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean difference between trainings with the same seeds."""

    mean: float
    half_width: float  # of the interval of Student's t at 95 %
    seeds: int

    @property
    def is_established(self) -> bool:
        """Whether the interval excludes 0."""
        return abs(self.mean) > self.half_width


def name_device() -> str:
    """Return the devices of this process, as in "1 × cpu"."""
    return f"{jax.device_count()} × {jax.devices()[0].device_kind}"


def name_place() -> dict[str, str]:
    """Return the fields of a result that is measured here."""
    return {"devices": name_device(), "jax": jax.__version__}


def common_place(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return where all of these results are from, as in "1 × cpu, JAX 0.10.2", or "" of none.

    Raises UserError if they are from different devices or versions of JAX, or do not say from which.
    """
    places = {tuple(row.get(name, NOT_RECORDED) for name in PLACE) for row in rows}
    if any(NOT_RECORDED in place for place in places):
        raise UserError("results without device or version of JAX cannot be compared: train them again")
    names = sorted(f"{device}, JAX {version}" for device, version in places)
    if len(names) > 1:
        raise UserError(f"results of different devices or versions of JAX cannot be compared: {'; '.join(names)}")
    return names[0] if names else ""


def compare(first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]], metric: str) -> Difference:
    """Return `first` minus `second` in a metric, paired by seed.

    Args:
        first: results, with the fields `seed`, `devices`, `jax` and `metric`.
        second: the same; seeds that only one of both has are left out.
        metric: the name of a field.

    Raises:
        UserError: the results are of different devices or versions of JAX, or share fewer than three seeds.
    """
    by_seed = [{row["seed"]: row for row in rows} for rows in (first, second)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(seeds) < LEAST_SEEDS:
        raise UserError(f"{len(seeds)} seeds in common: a comparison needs {LEAST_SEEDS}")
    common_place(rows[seed] for rows in by_seed for seed in seeds)
    return mean_difference([by_seed[0][seed][metric] - by_seed[1][seed][metric] for seed in seeds])


def mean_difference(differences: list[float]) -> Difference:
    """Return the mean of paired differences and the half-width of its interval, infinite for one difference."""
    count = len(differences)
    if count < 2:
        return Difference(differences[0], math.inf, count)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Difference(statistics.mean(differences), quantile * statistics.stdev(differences) / math.sqrt(count), count)
