"""The curves of training, of one run or of several on the same axes."""

from collections.abc import Sequence
from typing import Any

from hvq_jax.evaluation.curves import PANELS, Curves, Panel, find_curves, names_of_curves
from hvq_jax.evaluation.palette import QUANTITY_COLORS
from hvq_jax.report.blocks import details, figure, number, section
from hvq_jax.report.charts import Series, line_chart
from hvq_jax.report.findings import Findings
from hvq_jax.report.markup import Element, element, table

_MOST_ROWS = 20
_SPLITS = {"train": "training", "validation": "validation"}

# What each panel shows, by its title; and what good and bad look like.
_CAPTIONS = {
    "loss": (
        "The loss of the autoencoder and its terms, over training steps; lower is better.",
        "all fall, fast at first and then slowly, and validation stays close to training.",
        "a curve that rises or jumps (training is unstable: lower the learning rate), or validation that turns upwards "
        "while training falls (overfitting).",
    ),
    "perplexity": (
        "How many codes are in effect: the perplexity of their use, at most the number of codes.",
        "it rises early and stays a large part of the number of codes.",
        "it falls towards 1: the codebook collapses, and most codes are never used.",
    ),
    "nats_per_latent": (
        "The negative log-likelihood of latents under the prior, in nats (1.44 bits each); lower is better.",
        "both fall and stay close.",
        "validation turns upwards while training falls: the prior memorises; use a smaller one, dropout, or more "
        "images.",
    ),
}


def training(found: Findings) -> Element | None:
    """Return the section of the curves, None for a run that logged nothing, as one that was converted."""
    drawn = [(panel, find_curves(panel, found.records)) for panel in PANELS]
    figures = [_one_figure(panel, curves) for panel, curves in drawn if curves]
    if not figures:
        return None
    how = "Hold the pointer over a point to read its value."
    if any(len({split for _, split in curves}) > 1 for _, curves in drawn):
        how = f"Thin lines are the training split, thick ones with larger points the validation split. {how}"
    return section("Training", element("p", how), element("div", figures, class_="figures"))


def _one_figure(panel: Panel, curves: Curves) -> Element:
    shows, good, bad = _CAPTIONS[panel.quantities[0]]
    names = names_of_curves(panel.quantities, curves)
    colors = dict(zip(panel.quantities, QUANTITY_COLORS, strict=False))
    only_training = not any(split == "validation" for _, split in curves)
    series = [
        Series(
            f"{names[quantity]}, {_SPLITS[split]}" if len(names) == 1 else _tooltip(names[quantity], split),
            *points,
            colors[quantity],
            faint=split == "train" and not only_training,
        )
        for (quantity, split), points in curves.items()
        if quantity in names
    ]
    chart = line_chart(
        f"{panel.title}: {', '.join(names.values())}",
        series,
        x_label="training step",
        y_label=panel.unit,
        log=panel.scale == "log",
    )
    heading = element("h3", panel.title)
    return figure([heading, chart, _values(names, curves)], shows, good=good, bad=bad)


def _tooltip(name: str, split: str) -> str:
    return name if split == "validation" else f"{name}, training"


def _values(names: dict[str, str], curves: Curves) -> Element | None:
    """Return the values at the evaluations as a table, folded."""
    split = "validation" if any(split == "validation" for _, split in curves) else "train"
    columns = {
        name: dict(zip(*curves[quantity, split], strict=True))
        for quantity, name in names.items()
        if (quantity, split) in curves
    }
    steps = sorted(set().union(*columns.values()))
    stride = -(-len(steps) // _MOST_ROWS)
    rows = [
        [f"{step:,}", *(number(values[step], 4) if step in values else "–" for values in columns.values())]
        for step in reversed(steps[::-1][::stride])
    ]
    return details(f"Values, {_SPLITS[split]}", table(["step", *columns], rows))


def overlaid(runs: Sequence[tuple[Findings, dict[str, Any]]]) -> Element | None:
    """Return the section with the curves of several runs on the same axes; each comes with its look, see `Series`."""
    figures = []
    for panel in PANELS:
        quantity = "reconstruction" if "reconstruction" in panel.quantities else panel.quantities[0]
        series = [
            Series(found.name, *curve, **look)
            for found, look in runs
            if (curve := _best_known(find_curves(panel, found.records), quantity)) is not None
        ]
        if series:
            unit = panel.unit if quantity != "reconstruction" else "mean squared error of reconstructions"
            title = panel.title if quantity != "reconstruction" else "Autoencoder: reconstruction"
            chart = line_chart(
                f"{title}, of {len(series)} runs",
                series,
                x_label="training step",
                y_label=unit,
                log=panel.scale == "log",
            )
            shows = _COMPARED[panel.quantities[0]]
            figures.append(figure([element("h3", title), chart], shows))
    if not figures:
        return None
    return section("Training of all runs", element("div", figures, class_="figures"))


_COMPARED = {
    "loss": "The error of validation images (of training images where none were evaluated); lower is better. Runs "
    "that still fall at the end may be trained longer.",
    "perplexity": "How many codes are in effect; compare it with the number of codes of each run.",
    "nats_per_latent": "The negative log-likelihood of latents under each prior. A latent that carries more costs "
    "more: read it together with the quality, as in the chart of rate and distortion.",
}


def _best_known(curves: Curves, quantity: str) -> tuple[list[int], list[float]] | None:
    return curves.get((quantity, "validation")) or curves.get((quantity, "train"))
