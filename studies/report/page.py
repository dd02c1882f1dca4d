"""The page of this study."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from hvq_jax.files import write_text
from studies.comparison import LEAST_SEEDS, PLACE, Difference, compare
from studies.markdown import markdown
from studies.numbers import format_number
from studies.page import Page, find_page
from studies.report.cells import FULL, SEEDS, SMALL
from studies.report.figures import FIGURES, Results, draw
from studies.report.other_sizes import draw_all
from studies.results import read
from studies.tables import PLACE_HEAD, group_cells, split_by_place, spread, table

_POSITIONS = 49  # of a latent of 28×28 images
_SIZES = {"full": FULL, "small": SMALL}


def _redraw() -> None:
    for size in _SIZES.values():
        found = Results(*size)
        if found.kept:
            write_text(found.folder / "table.md", table(group_cells(found.kept), found.results))
            there = {cell.name for cell in found.kept}
            begun = [name for name, shown in FIGURES.items() if any(c.name in there for c in shown.needed(found))]
            draw(found, begun)
    draw_all()


def _tables() -> dict[str, str]:
    tables = {}
    for name, size in _SIZES.items():
        found = Results(*size)
        tables[f"{name}/trained"] = _trained(found)
        tables[f"{name}/missing"] = _missing(found)
    return tables


def _trained(found: Results) -> str:
    """Return the errors of all latents that have results, beside their rates."""
    head = ["preset", "latent", *PLACE_HEAD, "bits of codes", "positions with z_e or P, %", "test MSE"]
    head += ["minus that of `vq`", "codes used, %"]
    lines, anchors = [], _anchors(found)
    for group in group_cells(found.kept):
        for rows in split_by_place([read(cell, found.results) for cell in group]):
            difference = _difference(rows, anchors.get(group[0].labels["preset"], []))
            lines.append(
                [
                    f"`{group[0].labels['preset']}`",
                    group[0].labels["latent"],
                    str(len(rows)),
                    rows[0]["devices"],
                    rows[0]["jax"],
                    spread([_POSITIONS * math.log2(row["perplexity"]) for row in rows]),
                    spread([100 * row["share_outside"] for row in rows]),
                    spread([row["mse"] for row in rows]),
                    "" if difference is None else _signed(difference),
                    spread([100 * row["codes_used"] for row in rows]),
                ]
            )
    return markdown(head, lines) if lines else "No cell has been trained at this size yet.\n"


def _anchors(found: Results) -> dict[str, list[dict[str, Any]]]:
    """Return the results of `vq` by preset."""
    groups = [group for group in group_cells(found.kept) if group[0].labels["latent"] == "vq"]
    return {group[0].labels["preset"]: [read(cell, found.results) for cell in group] for group in groups}


def _difference(rows: list[dict[str, Any]], anchor: list[dict[str, Any]]) -> Difference | None:
    """Return the error of a latent minus that of `vq`, paired by seed; None for too few seeds, or for `vq` itself."""
    place = _place(rows[0])
    other = [row for row in anchor if _place(row) == place]
    if other == rows or len({row["seed"] for row in rows} & {row["seed"] for row in other}) < LEAST_SEEDS:
        return None
    return compare(rows, other, "mse")


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in PLACE)


def _signed(difference: Difference) -> str:
    return f"{format_number(difference.mean, '+.5f')} ± {difference.half_width:.5f}"


def _missing(found: Results) -> str:
    """Return how many of the cells of each figure have a result."""
    there = {cell.name for cell in found.kept}
    lines = []
    for name, shown in FIGURES.items():
        needed = shown.needed(found)
        trained = [cell for cell in needed if cell.name in there]
        by_seed = ", ".join(str(sum(cell.seed == seed for cell in trained)) for seed in SEEDS)
        lines.append([f"`{name}`", shown.title, str(len(needed)), str(len(trained)), by_seed])
    return markdown(["figure", "shows", "cells", "with a result", "of seeds 0, 1, 2"], lines)


def _numbers() -> dict[str, float]:
    """Return the means over seeds of each latent, "small/PRESET/LATENT/mse" and the like, and "…/seed 0/mse".

    "…/minus vq" is the mean difference from `vq`, "…/minus vq/size" without its sign, and "…/minus vq/interval" the
    half-width of its interval.
    """
    numbers = {}
    for name, size in _SIZES.items():
        found = Results(*size)
        anchors = _anchors(found)
        for group in group_cells(found.kept):
            rows = [read(cell, found.results) for cell in group]
            labels = group[0].labels
            for key in ("mse", "codes_used", "share_outside"):
                mean = statistics.mean(row[key] for row in rows)
                numbers[f"{name}/{labels['preset']}/{labels['latent']}/{key}"] = mean
            difference = _difference(rows, anchors.get(labels["preset"], []))
            if difference is not None:
                start = f"{name}/{labels['preset']}/{labels['latent']}/minus vq"
                numbers |= {start: difference.mean, f"{start}/size": abs(difference.mean)}
                numbers[f"{start}/interval"] = difference.half_width
            for cell, row in zip(group, rows, strict=True):
                numbers[f"{name}/{labels['preset']}/{labels['latent']}/seed {cell.seed}/mse"] = row["mse"]
    return numbers


PAGE = Page(
    find_page("report"),
    redraw=_redraw,
    numbers=_numbers,
    tables=_tables,
    definitions=(
        "28×28, K = 512, batch 128;",
        "no revival | 1 | 2e-4, constant |",
        "unused codes | 0.25 | 3e-3, cosine |",
        "S = 502, 412 and 312 as in the report (S = 512 is",
        "8 other values of S down to 0, and",
        "up to 25, 50, 75 and 90 %",
        "with S = 312. Three",
        "seed 0 first",
        "5,000 images",
        "D = 256 and 100 epochs",
        "D = 32 and one",
        "of width 16 with one residual",
        "at D = 32, one training each on a CPU: 40 epochs",
        "and 20 epochs with",
        "S = 312 and more",
        "earlier in training: at S = 128",
        "with its 95 % interval over seeds",
        "at S = 502",
        "at S = 312, _",
        "At S = 312",
        "at S = 256",
        "at S = 128, and _",
        "the mask, at S = 128",
        "at S = 0,",
        "with 95 % intervals",
        "at D = 64 and two",
        *(f"**Figure {number}**" for number in (1, 2, 3, 4, 5)),
        *(f"![figure {number}]" for number in (1, 2, 3, 4, 5)),
        "![figure 1, longer]",
        "![figure 5, three seeds]",
        "an H200;",
        "45 seconds before",
        "0.225 of its memory, and take 22 steps",
        "seed 0 with 16 test images",
        "on an H200, and",
        "intervals of 22, and",
        "1,950 points",
        "2,000 steps",
        "at most 8 files of at most 16 MiB",
    ),
)
