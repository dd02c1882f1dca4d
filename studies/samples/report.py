"""The tables of samples, from the evaluations and sweeps so far."""

from pathlib import Path
from typing import Any

from hvq_jax.errors import UserError
from hvq_jax.files import read_json, write_text
from studies import find_folder, find_results
from studies.cells import Cell
from studies.markdown import markdown
from studies.samples.cells import cells
from studies.samples.evaluate import Judgement
from studies.samples.sweep import read_sweep
from studies.tables import PLACE_HEAD, group_cells, split_by_place, spread

_HEAD = (
    "latent",
    "codebook",
    "prior",
    *PLACE_HEAD,
    "nats of codes",
    "histogram",
    "below it, %",
    "nats of continuous parts",
    "bits per pixel",
    "class accuracy, %",
    "Fréchet distance",
    "drawn gains are nearer than mean gains by",
    "of what is transmitted",
    "with mean gains",
    "of reconstructions",
    "precision, %",
    "recall, %",
)

_SWEEP_HEAD = ["run", "device", "JAX", "sampling", "Fréchet distance", "class accuracy, %", "precision, %", "recall, %"]


def judgement(cell: Cell) -> dict[str, Any] | None:
    """Return the evaluation of a cell, None if there is none yet."""
    return read_judgement(find_results("samples") / f"judged-{cell.name}.json")


def read_judgement(path: Path) -> dict[str, Any] | None:
    """Return the evaluation in a file, None if there is none; raise UserError if it is damaged."""
    found = read_json(path, Judgement, advice="delete it, and run studies.samples.evaluate again")
    return None if found is None else dict(found)


def rows(group: list[Cell]) -> list[list[str]]:
    """Return one row per device of cells that differ by seed only."""
    found = [result for cell in group if (result := judgement(cell))]
    return [row(group[0].labels, on_one) for on_one in split_by_place(found)]


def row(labels: dict[str, str], found: list[dict[str, Any]]) -> list[str]:
    """Return the row of the evaluations of cells that differ by seed only, all from one device."""
    priors = [result["prior"] for result in found]
    nats = [prior.get("nats_of_codes", prior["nats_per_latent"]) for prior in priors]
    histogram = [result["histogram_nats"] for result in found]
    distances = [result["samples"]["frechet_distance"] for result in found]
    nearer = [
        result["mean_gains"]["frechet_distance"] - distance
        for result, distance in zip(found, distances, strict=True)
        if "mean_gains" in result
    ]

    def percent(key: str) -> str:
        return spread([100 * result["samples"][key] for result in found])

    return [
        *labels.values(),
        str(len(found)),
        found[0]["devices"],
        found[0]["jax"],
        spread(nats),
        spread(histogram),
        spread([100 * (1 - ours / baseline) for ours, baseline in zip(nats, histogram, strict=True)]),
        spread([prior["nats_of_continuous"] for prior in priors if "nats_of_continuous" in prior]),
        spread([prior["bits_per_pixel"] for prior in priors]),
        percent("class_accuracy"),
        spread(distances),
        spread(nearer),
        *(
            spread([result.get(key) for result in found])
            for key in ("transmitted", "transmitted_mean_gains", "reconstructions")
        ),
        percent("precision"),
        percent("recall"),
    ]


def sweeps() -> list[list[str]]:
    """Return one row per setting of each sweep."""
    lines = []
    for path in sorted(find_results("samples").glob("sweep-*.json")):
        content = read_sweep(path)
        for point in content["points"]:
            setting = ", ".join(f"{name} {value:g}" for name, value in point["options"].items()) or "default"
            percents = [f"{100 * point[key]:.1f}" for key in ("class_accuracy", "precision", "recall")]
            place = [content["devices"], content["jax"]]
            distance = f"{point['frechet_distance']:.2f}"
            lines.append([path.stem.removeprefix("sweep-"), *place, setting, distance, *percents])
    return lines


def redraw() -> None:
    """Write `studies/samples/table.md`."""
    groups = group_cells([cell for cell in cells() if judgement(cell)])
    if not groups:
        raise UserError(f"{find_results('samples')}: no evaluation; run studies.samples.evaluate")
    table = markdown(list(_HEAD), [line for group in groups for line in rows(group)])
    if lines := sweeps():
        table += "\n" + markdown(_SWEEP_HEAD, lines)
    write_text(find_folder("samples") / "table.md", table)
