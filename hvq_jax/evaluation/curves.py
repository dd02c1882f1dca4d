"""The curves of a run: which metrics of `metrics.jsonl` are drawn together, and their points."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

_SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves that are drawn on the same axes."""

    stage: str
    title: str
    unit: str
    quantities: tuple[str, ...]  # their keys in the records
    scale: str


PANELS = (
    Panel(
        stage="autoencoder",
        title="Autoencoder: loss and its terms",
        unit="mean squared error",
        quantities=("loss", "reconstruction", "codebook", "commitment", "projection"),
        scale="log",
    ),
    Panel(
        stage="autoencoder",
        title="Autoencoder: use of the codebook",
        unit="perplexity (effective number of codes)",
        quantities=("perplexity",),
        scale="linear",
    ),
    Panel(
        stage="prior",
        title="Prior: negative log-likelihood",
        unit="nats per latent",
        quantities=("nats_per_latent",),
        scale="linear",
    ),
)

Curves = dict[tuple[str, str], tuple[list[int], list[float]]]  # (quantity, split) -> steps, values


def find_curves(panel: Panel, records: Sequence[dict[str, Any]]) -> Curves:
    """Return the curves of a panel, training before validation; those without a point that can be drawn are left out.

    Args:
        panel: what to draw.
        records: records of `metrics.jsonl`; of two records of the same step the later one is used.
    """
    curves: Curves = {}
    for split, quantity in itertools.product(_SPLITS, panel.quantities):
        points = {
            record["step"]: record[quantity]
            for record in records
            if record["stage"] == panel.stage
            and record["split"] == split
            and _can_be_drawn(record.get(quantity, math.nan), panel.scale)
        }
        if points:
            steps = sorted(points)
            curves[quantity, split] = steps, [points[step] for step in steps]
    return curves


def names_of_curves(quantities: Sequence[str], curves: Curves) -> dict[str, str]:
    """Return the quantities to draw, each with its name in the legend; those of the same numbers are one curve."""
    alike: dict[str, list[str]] = {}
    for quantity in quantities:
        own = {split: points for (name, split), points in curves.items() if name == quantity}
        if own:
            alike.setdefault(repr(own), []).append(quantity)
    return {same[0]: " = ".join(same) for same in alike.values()}


def _can_be_drawn(value: float, scale: str) -> bool:
    return math.isfinite(value) and (scale == "linear" or value > 0)
