"""The figures of the frontier: rate and distortion of every latent, and where the bits of an image go."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from hvq_jax.evaluation.palette import BLACK, GREY, LATENT_COLORS, ORANGE, SKY_BLUE
from hvq_jax.files import read_json
from studies.frontier.cells import Training
from studies.frontier.curves import ANCHOR, RATES, Made, by_curve, means
from studies.frontier.results import read_examples, read_training
from studies.page import ROOT
from studies.tables import save_figure

CODECS, CODECS_OF_PHOTOGRAPHS = (  # by benchmarks.codecs
    ROOT / f"docs/performance/codecs_{data}.json" for data in ("fashion_mnist", "photographs")
)
_SHOWN_CODECS = {"AVIF, mosaics": "-", "WebP, mosaics": "--", "k-means of patches": "-.", "PCA": ":"}
_MARKERS = "osD^vPX*<>hd"
_RATE_TITLES = {
    "coded": "bits per image, in files",
    "prior": "bits per image, under the prior",
    "static": "bits per image, by static codes",
}
_IMAGES = 4  # in the figure of bits by position


def plot_frontier(
    made: list[Made],
    trainings: list[Training],
    results: Path,
    path: Path,
    *,
    rate: str = "coded",
    codecs: Path | None = None,
) -> None:
    """Plot the MSE against the bits per image: the report's latents on the left, `vq` and all others on the right.

    Points are means over seeds, with the single seeds behind them; lines leave out, and empty markers show, points that
    cost more than others and are no better. The plain autoencoder, whose latent has no finite
    rate, is a horizontal line.

    Args:
        made: the points that have results.
        trainings: all trainings.
        results: the folder of the results.
        path: the file to write.
        rate: a name of `RATES`.
        codecs: a report of `benchmarks.codecs`, to be drawn as grey lines.
    """
    figure = Figure(figsize=(13, 6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    sides = {
        "the report's latents": lambda name: name in LATENT_COLORS,
        "other ways to spend bits, beside vq": lambda name: name == ANCHOR or name not in LATENT_COLORS,
    }
    plain = _find_plain_error(trainings, results)
    for axes, (title, is_shown) in zip(panels, sides.items(), strict=True):
        for (name, points), marker in zip(by_curve(made).items(), _MARKERS * 2, strict=False):
            if is_shown(name):
                _plot_curve(axes, name, points, rate, marker)
        if plain is not None:
            axes.axhline(plain, color="black", linewidth=1, linestyle=(0, (1, 3)), label="z_e unrounded")
        axes.set_title(title)
        axes.set_xlabel(_RATE_TITLES[rate])
        axes.grid(alpha=0.3)
    errors = [each.result["fine_tuned"]["mse"] for each in made] + ([] if plain is None else [plain])
    _set_scales(panels[0], [RATES[rate](each.result) for each in made], errors)
    _plot_codecs(panels[0], codecs)
    panels[0].set_ylabel("MSE of test images on [−1, 1]; decoder fine-tuned on what is sent")
    for axes in panels:
        axes.legend(fontsize="small", loc="upper right")
    save_figure(figure, path)


def _set_scales(axes: Axes, rates: list[float], errors: list[float]) -> None:
    """Set logarithmic scales with plain numbers, and the range of the data, of axes that others share."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0.9 * min(errors), 1.3 * max(errors))
    axes.set_xlim(0.8 * min(rates), 1.25 * max(rates))


def _color(curve: str) -> str:
    """Return the colour of a curve: that of its latent, and of `vq` for other ways to choose codes."""
    latent = curve.partition(",")[0]
    others = {"residual": SKY_BLUE, "fsq": ORANGE, "simvq": "#003C5C", "autoencoder": BLACK}
    return LATENT_COLORS.get(latent) or others.get(latent, GREY)


def _plot_curve(axes: Axes, name: str, points: list[Made], rate: str, marker: str) -> None:
    seeds = sorted({each.seed for each in points})
    for seed in seeds if len(seeds) > 1 else []:
        single = means([each for each in points if each.seed == seed], rate, "fine-tuned")
        axes.plot([x.bits for x in single], [x.mse for x in single], color=_color(name), linewidth=0.4, alpha=0.6)
    together = means(points, rate, "fine-tuned")
    style = "-" if "," not in name else "--"
    better = [x for i, x in enumerate(together) if x.mse < min((y.mse for y in together[:i]), default=math.inf)]
    look: Any = {"marker": marker, "markersize": 4, "color": _color(name)}
    axes.plot([x.bits for x in better], [x.mse for x in better], style, label=name, **look)
    worse = [x for x in together if x not in better]
    axes.plot([x.bits for x in worse], [x.mse for x in worse], linestyle="none", markerfacecolor="none", **look)


def _find_plain_error(trainings: list[Training], results: Path) -> float | None:
    """Return the MSE of the plain autoencoder, the mean over its trainings; None if there are none."""
    found = [
        about["mse"]
        for training in trainings
        if training.cell.labels["latent"] == "autoencoder" and (about := read_training(training, results))
    ]
    return statistics.mean(found) if found else None


def _plot_codecs(axes: Axes, path: Path | None) -> None:
    """Draw the codecs that are measured as lines, those with a point within the ranges of the axes."""
    report: Any = None if path is None else read_json(path, dict, advice="measure with benchmarks.codecs")
    curves = report["curves"] if report else {}
    for name, style in _SHOWN_CODECS.items():
        if curve := curves.get(name):
            bits = [point["bits_per_image"] for point in curve["points"]]
            errors = [point["mse"] for point in curve["points"]]
            places = zip(bits, errors, strict=True)
            if any(_is_within(axes.get_xlim(), x) and _is_within(axes.get_ylim(), y) for x, y in places):
                axes.plot(bits, errors, style, color=GREY, linewidth=1.2, label=name)


def _is_within(limits: tuple[float, float], value: float) -> bool:
    return limits[0] <= value <= limits[1]


def plot_bits(made: list[Made], shown: list[tuple[str, str]], results: Path, path: Path) -> bool:
    """Plot test images, and below, for each point, the images decoded and the bits of each position.

    Args:
        made: the points that have results.
        shown: curve and value of the points to show.
        results: the folder of the results.
        path: the file to write.

    Returns:
        Whether any of these points has kept images.
    """
    rows = []
    for curve, value in shown:
        for each in made:
            if (each.point.curve, each.point.value) == (curve, value):
                found = read_examples(each.training, each.point, results)
                if found is not None:
                    rows.append((f"{curve}, {value}", found, each.result["bits_by_position"]))
    if not rows:
        return False
    figure = Figure(figsize=(2 * _IMAGES + 3, 1.45 * (2 * len(rows) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 * len(rows) + 1, _IMAGES + 1, squeeze=False)
    for axes in panels.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    for number in range(_IMAGES):
        _show(panels[0, number], rows[0][1]["originals"][number])
    panels[0, 0].set_ylabel("test images", fontsize="small")
    panels[0, -1].axis("off")
    most = max(float((found["codes"] + found["continuous"])[:_IMAGES].max()) for _, found, _ in rows)
    for row, (name, found, positions) in enumerate(rows):
        bits = found["codes"] + found["continuous"]
        decoded, maps = panels[1 + 2 * row], panels[2 + 2 * row]
        for number in range(_IMAGES):
            _show(decoded[number], found["decoded"][number])
            shown_map = maps[number].imshow(bits[number], vmin=0, vmax=most, cmap="viridis")
            maps[number].set_xlabel(f"{bits[number].sum():.0f} bits", fontsize="small")
        mean = np.array(positions["codes"]) + np.array(positions["continuous"])
        maps[-1].imshow(mean, vmin=0, vmax=most, cmap="viridis")
        maps[-1].set_xlabel(f"mean, {mean.sum():.0f} bits", fontsize="small")
        decoded[-1].axis("off")
        decoded[0].set_ylabel(name, fontsize="small")
        maps[0].set_ylabel("bits", fontsize="small")
    figure.colorbar(shown_map, ax=panels[:, -1].tolist(), label="bits of a position under the prior", shrink=0.4)
    save_figure(figure, path)
    return True


def _show(axes: Axes, image: np.ndarray) -> None:
    grey = image.shape[-1] == 1
    axes.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)
