"""Tables and a plot of `benchmarks.codecs`, from the file of its results."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.measuring.codec_curves import MOSAICS, SINGLE_FILES, Curve, Report
from hvq_jax.files import whole_file, write_text

TARGETS = (0.04, 0.03, 0.02, 0.015, 0.01, 0.005)  # MSE

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
    curves, runs = _split(report)
    lines = [
        f"# {report['data']}",
        "",
        f"{report['test_images']:,} test images of {'×'.join(map(str, report['image_shape']))}, "
        f"{report['train_images']:,} to fit k-means and PCA to, {report['images_per_mosaic']:,} images per mosaic. "
        "MSE is of images in [−1, 1]; PSNR and SSIM are means over images.",
        "",
        f"{', '.join(map(' '.join, report['versions'].items()))}; {report['device']}; {report['date']}.",
        "",
        "Bits per image at equal MSE, between the measured points:",
        "",
        *_table(["", *(f"{mse:g}" for mse in TARGETS)], [_rates(name, curve) for name, curve in curves.items()]),
    ]
    if runs:
        head = ["run", "bits per image", "MSE", "PSNR, dB", "SSIM", *(f"{name} needs" for name in curves)]
        lines += ["", "Runs, and the bits that the others need for the same MSE:", ""]
        lines += _table(head, [_run(name, run, curves) for name, run in runs.items()])
    head = ["", "setting", "images", "bits per image", "MSE", "PSNR, dB", "SSIM"]
    lines += ["", "All points:", "", *_table(head, _points(report))]
    lines += ["", "Settings that do not vary:", ""]
    lines += [f"* {name}: {curve['settings'] or 'as Pillow sets them'}" for name, curve in report["curves"].items()]
    return "\n".join(lines) + "\n"


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
        axes.plot([point["bits_per_image"]], [point["mse"]], marker, color="black", markersize=9, label=name)
    _dress(axes)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format="png", facecolor="white")


def write_report(report: Report, stem: Path) -> None:
    """Write STEM.md and STEM.png."""
    write_text(stem.with_name(f"{stem.name}.md"), tables(report))
    save_plot(report, stem.with_name(f"{stem.name}.png"))


def _split(report: Report) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Return the curves of codecs, and those of runs by their names."""
    runs = {name: curve for name, curve in report["curves"].items() if name.startswith("run ")}
    return {name: curve for name, curve in report["curves"].items() if name not in runs}, runs


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _rates(name: str, curve: Curve) -> list[str]:
    return [name, *(_bits(bits_at(curve, mse)) for mse in TARGETS)]


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
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bits per image")
    axes.set_ylabel("MSE of test images, in [−1, 1]")
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
