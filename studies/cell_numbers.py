"""The numbers of a study's cells, by name, for its page."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from studies.cells import Cell
from studies.comparison import PLACE
from studies.results import is_kept, read
from studies.tables import group_cells, split_by_place


def cell_numbers(cells: list[Cell], results: Path) -> dict[str, float]:
    """Return the metrics of the cells that have results.

    The name of a row consists of its labels, as in "vq/64/2"; where rows with these labels are from several devices,
    " on DEVICE" is added. Then "ROW/mse" is the mean over seeds, "ROW/±/mse" half the range, "ROW/seed 1/mse" the value
    of one seed, and "ROW/seeds" their number. "PREFIX/*/least/mse" and "PREFIX/*/most/mse" are the extremes over all
    trainings whose labels begin with PREFIX; without labels, "*/least/mse".
    """
    numbers: dict[str, float] = {}
    below: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for group in group_cells([cell for cell in cells if is_kept(cell, results)]):
        labels = list(group[0].labels.values())
        parts = split_by_place([read(cell, results) for cell in group])
        for rows in parts:
            name = "/".join(labels) + (f" on {rows[0]['devices']}" if len(parts) > 1 else "")
            numbers |= row_numbers(name, rows)
            for length in range(len(labels) + 1):
                below["/".join([*labels[:length], "*"])] += rows
    for prefix, rows in below.items():
        for metric in _metrics(rows):
            values = _known(rows, metric)
            numbers |= {f"{prefix}/least/{metric}": min(values), f"{prefix}/most/{metric}": max(values)}
    return numbers


def row_numbers(name: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the numbers of one row of trainings that differ by seed."""
    numbers: dict[str, float] = {f"{name}/seeds": len(rows)}
    for metric in _metrics(rows):
        values = _known(rows, metric)
        numbers[f"{name}/{metric}"] = sum(values) / len(values)
        numbers[f"{name}/±/{metric}"] = (max(values) - min(values)) / 2
        numbers |= {f"{name}/seed {row['seed']}/{metric}": row[metric] for row in rows if row[metric] is not None}
    return numbers


def _metrics(rows: list[dict[str, Any]]) -> list[str]:
    return [key for key in rows[0] if key not in (*PLACE, "seed") and any(_is_number(row.get(key)) for row in rows)]


def _known(rows: list[dict[str, Any]], metric: str) -> list[float]:
    return [row[metric] for row in rows if _is_number(row.get(metric))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
