"""The page of this study."""

from typing import Any

from studies import find_results
from studies.cells import Cell
from studies.markdown import markdown
from studies.numbers import format_number
from studies.page import Page, find_page
from studies.samples.cells import cells
from studies.samples.evaluate import read_baseline
from studies.samples.report import judgement, redraw
from studies.samples.sweep import read_sweep
from studies.tables import group_cells, split_by_place

_PERCENT = ("class_accuracy", "precision", "recall")
_LATENTS, _BUT_FREQUENCY = ("vq", "projected", "frequency", "combined"), ("vq", "projected", "combined")
_NAMES = {"pixelcnn": "PixelCNN", "transformer": "transformer"}
_CODEBOOKS, _PRIORS = ("default", "spherical"), ("pixelcnn", "transformer")


# Sets of trainings whose extremes the page names: (latents, codebook, priors)
_SETS = {
    "pixelcnn": (_LATENTS, _CODEBOOKS, ("pixelcnn",)),
    "pixelcnn but frequency": (_BUT_FREQUENCY, _CODEBOOKS, ("pixelcnn",)),
    "default codebook": (_LATENTS, ("default",), _PRIORS),
    "default codebook but frequency": (_BUT_FREQUENCY, ("default",), _PRIORS),
    "default codebook, pixelcnn but frequency": (_BUT_FREQUENCY, ("default",), ("pixelcnn",)),
    "length 1": (_LATENTS, ("spherical",), _PRIORS),
    **{
        f"{latent}, {codebook}, pixelcnn": ((latent,), (codebook,), ("pixelcnn",))
        for latent in ("projected", "combined")
        for codebook in _CODEBOOKS
    },
}


def _numbers() -> dict[str, float]:
    found = [(cell, result) for cell in cells() if (result := judgement(cell))]
    rows = [(cell, _row(result)) for cell, result in found]
    numbers = {
        f"classifier/{name}": value
        for name, value in read_baseline(find_results("samples") / "classifier.json").items()
        if isinstance(value, float)
    }
    for cell, row in rows:
        name = "/".join([*cell.labels.values(), f"seed {cell.seed}"])
        numbers |= {f"{name}/{metric}": value for metric, value in row.items()}
    for name, choices in _SETS.items():
        numbers |= _extremes(name, [row for cell, row in rows if _has_labels(cell, choices)])
    numbers |= _drawn_against_mean([result for _, result in found if "mean_gains" in result])
    return numbers | _sweeps()


def _has_labels(cell: Cell, choices: tuple[tuple[str, ...], ...]) -> bool:
    return all(label in allowed for label, allowed in zip(cell.labels.values(), choices, strict=True))


def _row(result: dict[str, Any]) -> dict[str, float]:
    prior, samples = result["prior"], result["samples"]
    codes = prior.get("nats_of_codes", prior["nats_per_latent"])
    row = {
        "nats of codes": codes,
        "histogram": result["histogram_nats"],
        "below histogram": 1 - codes / result["histogram_nats"],
        "bits_per_pixel": prior["bits_per_pixel"],
        "transmitted": result["transmitted"],
        "reconstructions": result["reconstructions"],
        "distance": samples["frechet_distance"],
        **{name: samples[name] for name in _PERCENT},
    }
    if "nats_of_continuous" in prior:
        row["nats of continuous"] = prior["nats_of_continuous"]
    if "mean_gains" in result:
        row["nearer"] = result["mean_gains"]["frechet_distance"] - samples["frechet_distance"]
        row["transmitted nearer"] = result["transmitted_mean_gains"] - result["transmitted"]
    return row


def _extremes(name: str, rows: list[dict[str, float]]) -> dict[str, float]:
    values = {metric: [row[metric] for row in rows if metric in row] for row in rows for metric in row}
    return {
        f"{name}/{extreme}/{metric}": choose(found)
        for metric, found in values.items()
        for extreme, choose in (("least", min), ("most", max))
    }


def _drawn_against_mean(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return in how many trainings drawn lengths are better than mean lengths, by each metric."""
    pairs = [(result["samples"], result["mean_gains"]) for result in results]
    return {
        "drawn/trainings": len(pairs),
        "drawn/nearer": sum(drawn["frechet_distance"] < mean["frechet_distance"] for drawn, mean in pairs),
        **{f"drawn/lower {name}": sum(drawn[name] < mean[name] for drawn, mean in pairs) for name in _PERCENT},
    }


def _sweeps() -> dict[str, float]:
    numbers: dict[str, float] = {}
    for path in sorted(find_results("samples").glob("sweep-*.json")):
        latent = path.stem.split("-")[1]
        for point in read_sweep(path)["points"]:
            setting = ", ".join(f"{name} {value:g}" for name, value in point["options"].items()) or "default"
            numbers[f"sweep/{latent}/{setting}/distance"] = point["frechet_distance"]
            numbers |= {f"sweep/{latent}/{setting}/{name}": point[name] for name in _PERCENT}
    return numbers


def _tables() -> dict[str, str]:
    """Return the latents with the default codebook, for docs/results.md."""
    head = [
        "latent, prior",
        "trainings",
        "device, JAX",
        "bits per pixel",
        "nats per latent: codes (histogram)",
        "continuous part",
        "class accuracy, %",
        "Fréchet distance of samples",
        "with mean lengths",
        "of transmitted images",
    ]
    lines = []
    for group in group_cells([cell for cell in cells() if cell.labels["codebook"] == "default" and judgement(cell)]):
        for found in split_by_place([result for cell in group if (result := judgement(cell))]):
            rows = [_row(result) for result in found]
            lines.append(
                [
                    f"`{group[0].labels['latent']}`, {_NAMES[group[0].labels['prior']]}",
                    str(len(rows)),
                    f"{found[0]['devices'].removeprefix('1 × ')}, {found[0]['jax']}",
                    _mean(rows, "bits_per_pixel", ".3f"),
                    f"{_mean(rows, 'nats of codes', '.1f')} ({_mean(rows, 'histogram', '.0f')})",
                    _mean(rows, "nats of continuous", ",.1f"),
                    _mean([{"percent": 100 * row["class_accuracy"]} for row in rows], "percent", ".1f"),
                    _mean(rows, "distance", ".2f"),
                    _mean(rows, "nearer", "+.2f"),
                    _mean(rows, "transmitted", ".2f"),
                ]
            )
    return {"latents": markdown(head, lines)}


def _mean(rows: list[dict[str, float]], metric: str, spec: str) -> str:
    known = [row[metric] for row in rows if metric in row]
    return format_number(sum(known) / len(known), spec) if known else ""


PAGE = Page(
    find_page("samples"),
    redraw=redraw,
    numbers=_numbers,
    tables=_tables,
    definitions=(
        "D = 64",
        "K = 512",
        "length 1",
        "length 1",
        "length 1",
        "length 1",
        "0.4 million parameters",
        "20 minutes",
        "10,000 samples",
        "10,000 samples",
        "10,000 test images",
        "10,000 training images",
        "seed 0",
        "seed 0",
        "seed 0",
        "seed 1",
        "one H200",
        "(H200,",
        "(H200,",
        "the H200",
        "JAX 0.11.2",
        "JAX 0.10.2",
        "temperature 0.8",
        "top-p 0.95",
    ),
)
