"""The tables and the plot of rate and distortion, from the results so far."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from hvq_jax.errors import UserError
from hvq_jax.evaluation.palette import curve_colors
from hvq_jax.files import read_json, write_text
from studies import find_folder, find_results
from studies.markdown import markdown
from studies.rates.measure import NUM_BINS, STEPS, Measurement
from studies.tables import save_figure

_ABOUT = {
    "share_outside": "positions with a continuous part",
    "radial_share": "radial share",
    "length_mean": "ρ, mean",
    "length_spread": "ρ, spread",
    "spread_within_codes": "ρ, spread within codes",
    "bits_of_codes": "bits per image of codes",
    "mse_not_rounded": "test MSE, not rounded",
}
SETTINGS = _PER_CODE, _FOR_ALL, _STEPS = (
    [f"{g} a code" for g in NUM_BINS],
    [f"{g} for all" for g in NUM_BINS],
    [f"step {s:g}" for s in STEPS],
)
_MARKERS = "osD^vPX"


def read_all() -> dict[str, dict[str, Any]]:
    """Return all results by name."""
    found = {path.stem: read_result(path) for path in sorted(find_results("rates").glob("*.json"))}
    if not found:
        raise UserError(f"{find_results('rates')}: no results; measure runs with studies.rates.measure")
    return found


def read_result(path: Path) -> dict[str, Any]:
    """Return one result; raise UserError if it is damaged, or lacks some of the settings that belong together."""
    advice = "measure the run again with studies.rates.measure"
    result = dict(read_json(path, Measurement, advice=advice) or {})
    settings: Any = result["settings"]
    curves = [names for names in SETTINGS if set(names) & set(settings)]
    missing = [name for names in curves or [_STEPS] for name in names if name not in settings]
    if missing:
        raise UserError(f"{path} has no setting {missing[0]}: {advice}")
    return result


def about(found: dict[str, dict[str, Any]]) -> str:
    """Return a table with one row per run: the statistics of the continuous part before rounding."""

    def entry(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    rows = [
        [name, result["devices"], result["jax"], *(entry(result.get(key)) for key in _ABOUT)]
        for name, result in found.items()
    ]
    return markdown(["run", "device", "JAX", *_ABOUT.values()], rows)


def settings(found: dict[str, dict[str, Any]], names: list[str]) -> str:
    """Return a table with one row per run that has these settings: the MSE (bits per image of the continuous part)."""
    rows = [
        [name, *(_setting(result["settings"][key]) for key in names)]
        for name, result in found.items()
        if names[0] in result["settings"]
    ]
    return markdown(["run", *(name.replace(" a code", " per code") for name in names)], rows)


def _setting(row: dict[str, float]) -> str:
    return f"{row['mse']:.4f} ({row['bits_of_continuous']:.0f})"


def plot(found: dict[str, dict[str, Any]], path: Any) -> None:
    """Plot the MSE against the bins per code, and against all bits per image, by static codes."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    colors = curve_colors([result["latent"] for result in found.values()])
    for (name, result), color, marker in zip(found.items(), colors, _MARKERS * len(found), strict=False):
        keys = _PER_CODE if _PER_CODE[0] in result["settings"] else _STEPS
        rows = [result["settings"][key] for key in keys]
        mse = [row["mse"] for row in rows]
        if keys is _PER_CODE:
            left.plot(NUM_BINS, mse, "-", marker=marker, color=color, label=f"{name}, {result['devices']}")
            left.axhline(result["mse_not_rounded"], color=color, linestyle=":", linewidth=1)
        bits = [result["bits_of_codes"] + row["bits_of_continuous"] for row in rows]
        right.plot(bits, mse, "-", marker=marker, color=color, label=f"{name}, {result['devices']}")
    left.set_xscale("log", base=2)
    left.set_xticks(NUM_BINS, [str(g) for g in NUM_BINS])
    left.set_xlabel("G, bins per code (dotted: not rounded)")
    right.set_xscale("log")
    right.xaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
    right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    right.set_xlabel(
        "bits per image, codes and continuous part, by static codes\n"
        f"(from left: {NUM_BINS[0]} to {NUM_BINS[-1]} bins per code, or residual steps of {STEPS[0]} to {STEPS[-1]})"
    )
    for axes in (left, right):
        axes.set_ylabel("test MSE, images in [-1, 1]")
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def redraw() -> None:
    """Write `studies/rates/table.md` and `studies/rates/rates.svg`."""
    found = read_all()
    parts = [about(found)]
    for names in SETTINGS:
        if any(names[0] in result["settings"] for result in found.values()):
            parts.append(settings(found, names))
    folder = find_folder("rates")
    write_text(folder / "table.md", "\n".join(parts))
    plot(found, folder / "rates.svg")
