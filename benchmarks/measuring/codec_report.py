"""Tables and a plot of `benchmarks.codecs`, from the file of its results."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.measuring.codec_curves import MOSAICS, SINGLE_FILES, Curve, Report
from hvq_jax.evaluation.palette import BLACK, LATENT_COLORS
from hvq_jax.files import whole_file, write_text
from studies.markdown import markdown

TARGETS = (0.04, 0.03, 0.02, 0.015, 0.01, 0.005, 0.002, 0.001)  # MSE

_SIZE = (9.6, 5.4)  # inches
_PIXELS_PER_INCH = 100
_DASHES = {MOSAICS: "-", SINGLE_FILES: ":"}  # "-" of what is neither
_MARKERS = "*Ds^vPX<>h"


def bits_at(curve: Curve, mse: float) -> float | None:
    """Return the bits per image at which a curve has this MSE, between its points; None beyond its ends.

    Between two points, the logarithm of the rate is linear in that of the error.
    """
    points = sorted((point for point in curve["points"] if point["mse"]), key=lambda point: point["mse"])
    errors, rates = ([math.log(point[key]) for point in points] for key in ("mse", "bits_per_image"))
    if not errors or not errors[0] <= math.log(mse) <= errors[-1]:
        return None
    return float(np.exp(np.interp(math.log(mse), errors, rates)))


def tables(report: Report) -> str:
    """Return a page of Markdown: the conditions, rates at equal error, and all points."""
    _, runs = _split(report)
    parts = [
        f"# Codecs on {report['data']}\n",
        f"{report['test_images']:,} test images of {'×'.join(map(str, report['image_shape']))}, "
        f"{report['train_images']:,} to fit k-means and PCA to, {report['images_per_mosaic']:,} images per mosaic"
        f"{', shuffled' if report['shuffled'] else ''}. "
        "MSE is of images in [−1, 1]; PSNR and SSIM are means over images.\n",
        f"{', '.join(map(' '.join, report['versions'].items()))}; {report['device']}; {report['date']}.\n",
        "Bits per image at equal MSE, between the measured points:\n",
        rates_table(report),
        *(["Runs, and the bits that the others need for the same MSE:\n", runs_table(report)] if runs else []),
        "All points:\n",
        markdown(["", "setting", "images", "bits per image", "MSE", "PSNR, dB", "SSIM"], _points(report)),
        "Settings that do not vary:\n",
        "".join(f"* {name}: {curve['settings'] or 'none'}\n" for name, curve in report["curves"].items()),
    ]
    return "\n".join(parts)


def rates_table(report: Report) -> str:
    """Return a table of the bits per image that each codec needs for those of the errors `TARGETS` that any has."""
    curves = _split(report)[0]
    reached = [mse for mse in TARGETS if any(bits_at(curve, mse) for curve in curves.values())]
    rows = [[name, *(_bits(bits_at(curve, mse)) for mse in reached)] for name, curve in curves.items()]
    return markdown(["MSE", *(f"{mse:g}" for mse in reached)], rows)


def runs_table(report: Report) -> str:
    """Return a table of runs, and of what the codecs need for the same error; single files are left out."""
    curves, runs = _split(report)
    others = {name: curve for name, curve in curves.items() if not name.endswith(SINGLE_FILES)}
    head = ["run", "bits per image", "MSE", "PSNR, dB", "SSIM", *others]
    return markdown(head, [_run(name, run, others) for name, run in runs.items()])


def save_plot(report: Report, path: Path) -> None:
    """Plot the MSE of every curve against its bits per image, as a PNG."""
    curves, runs = _split(report)
    figure = Figure(_SIZE, dpi=_PIXELS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for name, curve in curves.items():
        codec, _, packing = name.rpartition(", ") if name.endswith(tuple(_DASHES)) else (name, "", "")
        colour = colours.setdefault(codec, f"C{len(colours)}")
        xy = zip(*((point["bits_per_image"], point["mse"]) for point in curve["points"]), strict=True)
        axes.plot(*xy, _DASHES.get(packing, "-"), marker="o", markersize=3, color=colour, label=name)
    for marker, (name, run) in zip(_MARKERS * len(runs), runs.items(), strict=False):
        (point,) = run["points"]
        style: dict[str, Any] = {"color": _run_colour(name), "markeredgecolor": BLACK, "markersize": 9}
        axes.plot([point["bits_per_image"]], [point["mse"]], marker, **style, label=name)
    _dress(axes)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format="png", facecolor="white")


def _run_colour(name: str) -> str:
    """Return the colour of the latent after which a run is called, as in "run vq-longer", or black."""
    latent = re.split(r"\W", name.removeprefix("run "))[0]
    return LATENT_COLORS.get(latent, BLACK)


def write_report(report: Report, stem: Path) -> None:
    """Write STEM.md and STEM.png."""
    write_text(stem.with_name(f"{stem.name}.md"), tables(report))
    save_plot(report, stem.with_name(f"{stem.name}.png"))


def _split(report: Report) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Return the curves of codecs, and those of runs by their names."""
    runs = {name: curve for name, curve in report["curves"].items() if name.startswith("run ")}
    return {name: curve for name, curve in report["curves"].items() if name not in runs}, runs


def _run(name: str, run: Curve, curves: dict[str, Curve]) -> list[str]:
    (point,) = run["points"]
    cells = [name.removeprefix("run "), _bits(point["bits_per_image"]), f"{point['mse']:.4f}"]
    cells += [f"{point['psnr']:.2f}", f"{point['ssim']:.3f}"]
    return [*cells, *(_bits(bits_at(curve, point["mse"])) for curve in curves.values())]


def _points(report: Report) -> list[list[str]]:
    return [
        [
            name,
            point["setting"],
            f"{point['images']:,}",
            _bits(point["bits_per_image"]),
            f"{point['mse']:.4f}",
            f"{point['psnr']:.2f}",
            f"{point['ssim']:.3f}",
        ]
        for name, curve in report["curves"].items()
        for point in curve["points"]
    ]


def _bits(bits: float | None) -> str:
    return "" if bits is None else f"{bits:,.0f}"


def _dress(axes: Axes) -> None:
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bits per image")
    axes.set_ylabel("MSE of test images, in [−1, 1]")
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
