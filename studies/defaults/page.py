"""The page of this study."""

import math
from functools import partial

import numpy as np

from studies import STUDIES, find_results
from studies.comparison import compare
from studies.defaults.cells import LATENTS
from studies.page import Page, find_page, numbers_of_cells, redraw_cells
from studies.results import is_kept, read, read_curve
from studies.run_metrics import FIRST, peaks

_POSITIONS = 49  # of a latent of 28×28 images
_RESULTS = find_results("defaults")


def _numbers() -> dict[str, float]:
    kept = [cell for cell in STUDIES["defaults"]() if is_kept(cell, _RESULTS)]
    short = {latent: [cell for cell in kept if cell.labels == _labels(latent, "64", "2")] for latent in LATENTS}
    rows = {latent: [read(cell, _RESULTS) for cell in cells] for latent, cells in short.items()}
    numbers = numbers_of_cells("defaults")
    for latent, found in rows.items():
        numbers[f"{latent}/bits of codes"] = float(
            np.mean([_POSITIONS * math.log2(row["perplexity"]) for row in found])
        )
        if latent != "vq":
            difference = compare(rows["vq"], found, "mse")
            numbers |= {f"vq - {latent}/mse": difference.mean, f"vq - {latent}/interval/mse": difference.half_width}
    values = [row["perplexity"] for found in rows.values() for row in found]
    peak = max(row["peak"] for found in rows.values() for row in found)
    numbers |= {"short/least/perplexity": min(values), "short/most/perplexity": max(values), "short/most/peak": peak}
    for latent in ("projected", "combined"):
        (cell,) = (cell for cell in kept if cell.labels == _labels(latent, "32", "20"))
        ratios = peaks(read_curve(cell, _RESULTS, "loss"))
        numbers |= {
            f"{latent}/step of the peak": FIRST + 1 + int(ratios.argmax()),
            f"{latent}/last half/peak": float(ratios[(len(ratios) + FIRST) // 2 - FIRST :].max()),
        }
    return numbers


def _labels(latent: str, dim: str, num_epochs: str) -> dict[str, str]:
    return {"latent": latent, "D": dim, "epochs": num_epochs}


PAGE = Page(
    find_page("defaults"),
    redraw=partial(redraw_cells, "defaults"),
    numbers=_numbers,
    definitions=(
        "K = 512",
        "batch 128",
        "D = 64",
        "D = 64",
        "2 epochs",
        "3 seeds",
        "D = 32",
        "D = 32",
        "20 epochs",
        "60,000 training images",
        "5,000 form",
        "49 positions",
        "95 % intervals",
        "are 0.25 because",
        "the 101 before",
    ),
)
