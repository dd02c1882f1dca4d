"""The page of this study."""

import math
from functools import partial

import numpy as np

from studies import STUDIES, find_results
from studies.comparison import compare
from studies.defaults.cells import LATENTS
from studies.markdown import markdown
from studies.page import Page, find_page, numbers_of_cells, redraw_cells
from studies.rates.report import read_all
from studies.results import is_kept, read, read_curve
from studies.run_metrics import FIRST, peaks

_POSITIONS = 49  # of a latent of 28×28 images
_RESULTS = find_results("defaults")


def _numbers() -> dict[str, float]:
    kept = [cell for cell in STUDIES["defaults"]() if is_kept(cell, _RESULTS)]
    short = {latent: [cell for cell in kept if cell.labels == _labels(latent, "64", "2")] for latent in LATENTS}
    rows = {latent: [read(cell, _RESULTS) for cell in cells] for latent, cells in short.items()}
    numbers = numbers_of_cells("defaults")
    numbers["rates/projected/1 a code/mse"] = read_all()["projected"]["settings"]["1 a code"]["mse"]
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


def _tables() -> dict[str, str]:
    """Return the latents at two epochs beside their rates, for docs/results.md."""
    numbers, rates = _numbers(), read_all()
    head = ["latent", "trainings", "bits per image: codes", "continuous part", "test MSE on [−1, 1]", "PSNR, dB"]
    codes = {latent: f"{numbers[f'{latent}/bits of codes']:.0f}" for latent in LATENTS}
    lines = []
    for latent in LATENTS:
        mse, psnr = (numbers[f"{latent}/64/2/{metric}"] for metric in ("mse", "psnr"))
        half_range, count = numbers[f"{latent}/64/2/±/mse"], numbers[f"{latent}/64/2/seeds"]
        shown = "none" if latent == "vq" else "not rounded"
        lines.append([f"`{latent}`", f"{count}", codes[latent], shown, f"{mse:.4f} ± {half_range:.4f}", f"{psnr:.1f}"])
    result = rates["projected"]
    for num_bins, shown in ((16, "16 bins per code"), (4, "4 bins per code"), (1, "mean length of each code")):
        setting = result["settings"][f"{num_bins} a code"]
        mse, bits = setting["mse"], setting["bits_of_continuous"]
        codes_bits = f"{result['bits_of_codes']:.0f}"
        lines.append([f"`projected`, {shown}", "1", codes_bits, f"{bits:.0f}", f"{mse:.4f}", ""])
    return {"latents": markdown(head, lines)}


def _labels(latent: str, dim: str, num_epochs: str) -> dict[str, str]:
    return {"latent": latent, "D": dim, "epochs": num_epochs}


PAGE = Page(
    find_page("defaults"),
    redraw=partial(redraw_cells, "defaults"),
    numbers=_numbers,
    tables=_tables,
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
        "excludes 0)",
        "are 0.25 because",
        "the 101 before",
    ),
)
