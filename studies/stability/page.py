"""The page of this study."""

from functools import partial

import numpy as np

from studies import STUDIES, find_results
from studies.comparison import compare
from studies.page import Page, find_page, numbers_of_cells, redraw_cells
from studies.results import is_kept, read, read_curve
from studies.run_metrics import FIRST, WINDOW, peaks
from studies.stability.cells import GRADIENTS
from studies.stability.probe import read_probe

_RESULTS = find_results("stability")
_LAST = 10 * 429  # steps of ten epochs


def _numbers() -> dict[str, float]:
    numbers = {f"defaults/{name}": value for name, value in numbers_of_cells("defaults").items()}
    numbers |= numbers_of_cells("stability")
    kept = [cell for cell in STUDIES["stability"]() if is_kept(cell, _RESULTS)]
    grid = [(cell.labels, read(cell, _RESULTS)) for cell in kept if cell.labels["steps"] == "1,400"]
    numbers["grid/most/peak"] = max(row["peak"] for _, row in grid)
    for name, chosen in {
        "gradient": [row for labels, row in grid if labels["codebook"] == "gradient"],
        "others": [row for labels, row in grid if labels["codebook"] != "gradient"],
        "naive": [row for labels, row in grid if labels["codebook"] == "gradient" and "both" in labels["gradient"]],
    }.items():
        for metric in ("codes_used", "perplexity", "gain_mean"):
            values = [row[metric] for row in chosen]
            numbers |= {f"{name}/least/{metric}": min(values), f"{name}/most/{metric}": max(values)}
    for codebook in ("gradient", "ema", "spherical"):
        rows = {
            gradient: [row for labels, row in grid if (labels["codebook"], labels["gradient"]) == (codebook, gradient)]
            for gradient in GRADIENTS
        }
        for gradient, found in rows.items():
            if found and gradient != "straight_through":
                difference = compare(found, rows["straight_through"], "mse")
                name = f"{codebook}/{gradient} - straight_through"
                numbers |= {f"{name}/mse": difference.mean, f"{name}/interval/mse": difference.half_width}
        ratios = [row["gradient_norm_ratio"] for row in rows["both"]]
        if ratios:
            numbers |= {f"{codebook}/both/least/ratio": min(ratios), f"{codebook}/both/most/ratio": max(ratios)}
    for cell in kept:
        curves = {name: read_curve(cell, _RESULTS, name) for name in ("loss", "gain", "perplexity", "gradient_norm")}
        name = "/".join([*cell.labels.values(), f"seed {cell.seed}"])
        for step in (1, 51, 1000, 4000, 12_000):
            if step <= len(curves["gain"]):
                around = slice(max(step - 51, 0), step + 50) if step > 51 else slice(step - 1, step)
                numbers |= {f"{name}/step {step:,}/{key}": float(curves[key][around].mean()) for key in curves}
        numbers[f"{name}/most/gradient_norm"] = float(curves["gradient_norm"].max())
    for gradient in ("both", "both_through_st"):
        numbers |= _late(gradient)
    return numbers | _probe()


def _late(gradient: str) -> dict[str, float]:
    """Return the numbers of a long run: of its largest ratio of losses, and of its end."""
    (cell,) = (c for c in STUDIES["stability"]() if (c.labels["gradient"], c.labels["steps"]) == (gradient, "17,160"))
    losses = read_curve(cell, _RESULTS, "loss")
    ratios = peaks(losses)
    top = int(ratios.argmax()) + FIRST
    before = slice(top - WINDOW, top)
    numbers = {
        "top/step": top + 1.0,
        "top/epoch": (top + 1) / 429,
        "top/ratio of loss": float(ratios.max()),
        "late/peak": float(ratios[-_LAST:].max()),
        "end/loss": float(losses[-429:].mean()),
        "steps above 1.5": int((ratios > 1.5).sum()),
        "first step above 1.5": float(np.argmax(ratios > 1.5) + FIRST + 1) if (ratios > 1.5).any() else np.nan,
    }
    for name in ("reconstruction", "projection", "codebook", "gradient_norm", "gain", "perplexity"):
        curve = read_curve(cell, _RESULTS, name)
        numbers[f"top/median/{name}"] = float(np.median(curve[before]))
        numbers[f"top/ratio/{name}"] = float(curve[top] / np.median(curve[before]))
    return {f"long/{gradient}/{name}": value for name, value in numbers.items()}


def _probe() -> dict[str, float]:
    found = read_probe(_RESULTS / "probe-gradient-both-17160-seed_0.json")
    worst = found["worst_steps"]
    gains = [step["largest_mean_gain"] for step in worst]
    return {
        **{f"probe/{name}": value for name, value in found.items() if isinstance(value, int | float)},
        "probe/worst/step": worst[0]["step"],
        "probe/worst/loss_ratio": worst[0]["loss_ratio"],
        "probe/worst/least/gain": min(gains),
        "probe/worst/most/gain": max(gains),
        "probe/worst/most/step": max(step["largest_step_before_in_learning_rates"] for step in worst),
    }


PAGE = Page(
    find_page("stability"),
    redraw=partial(redraw_cells, "stability"),
    numbers=_numbers,
    definitions=(
        "D = 32",
        "D = 32",
        "K = 512",
        "batch 128",
        "1,400 steps",
        "1,400 steps",
        "40 epochs (17,160 steps)",
        "JAX 0.10.2",
        "length 1",
        "All 30 cells",
        "95 % intervals",
        "the 101 before",
        "the 101 steps before",
        "above 1.5 times",
        "length of 0.006",
        "step 1,000",
        "step 4,000",
        "step 4,000",
        "step 12,000",
        "Gains above 2",
        "is above 2 in",
        "is below 2.",
        "at least 200 steps",
        "step 51 (seed 0)",
        "In 20 epochs",
    ),
)
