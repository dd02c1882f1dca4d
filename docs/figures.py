"""Draws the figures of the site: the latents by the library itself, and curves from the results of a study.

    python -m docs.figures                     # those of the pages; the same out of every start, to the byte
    python -m docs.figures runs/quickstart     # and the pictures of this run, after `make quickstart`

Run it in the repository's folder.
"""

import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

import hvq_jax as hvq
from hvq_jax.evaluation.palette import BLUE, GREY, VERMILION, latent_color
from hvq_jax.latents import CODE, LATENTS
from hvq_jax.layout import LOSS_CURVES, RECONSTRUCTIONS, SAMPLES
from hvq_jax.priors.bins import fit_bins

DOCS = Path(__file__).parent
CODEBOOKS = DOCS.parent / "studies" / "codebooks" / "results"
CODES = jnp.array([[1.5, 0.35], [0.75, 1.25], [-0.6, 1.45], [-1.4, 0.1], [-0.55, -1.05], [0.95, -1.0]])
NUM_FREQUENT = 3


def draw_all() -> None:
    """Write every figure."""
    mpl.rcParams.update({"svg.hashsalt": "hvq_jax", "svg.fonttype": "path", "font.size": 9})
    figures = {
        "explanation/projection": projection(),
        "explanation/latents": latents(),
        "explanation/bins": bins(),
        "images/curves": curves(),
    }
    for name, figure in figures.items():
        FigureCanvasSVG(figure).print_svg(DOCS / f"{name}.svg", metadata={"Date": None, "Creator": None})


def show_run(workdir: Path) -> None:
    """Copy the plots of a run, and draw a strip of its samples: two per class, three times as large as they are."""
    for name in (SAMPLES, RECONSTRUCTIONS, LOSS_CURVES):
        shutil.copy(workdir / name, DOCS / "images" / name)
    run = hvq.load(workdir)
    num_classes = len(run.class_names)
    images = run.sample(np.arange(2 * num_classes) % num_classes, seed=1, guidance=0.5).images
    tiles = np.pad(images[..., 0].repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)), constant_values=255)
    rows = tiles.reshape(2, num_classes, *tiles.shape[1:]).swapaxes(1, 2)
    Image.fromarray(rows.reshape(2 * tiles.shape[1], -1)).save(DOCS / "images" / "strip.png", optimize=True)


def projection() -> Figure:
    """The triangle of an encoder output, its code and its projection."""
    z_e, code = np.array([1.9, 1.75]), np.array([1.5, 0.6])
    projected = np.asarray(hvq.project(z_e, code))
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    axes = figure.subplots()
    for point, color, name, shift in (
        (z_e, "black", "$z_e$, the encoder's output", (-0.08, 0.09)),
        (code, BLUE, "$e$, the nearest code", (0.02, -0.2)),
        (projected, VERMILION, r"$P(z_e, e) = \alpha e$", (0.1, -0.08)),
    ):
        axes.annotate("", point, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0})
        axes.text(*(point + shift), name, color=color)
    axes.plot(*zip((0, 0), 1.35 * code, strict=True), color=GREY, linewidth=0.8, linestyle=":")
    axes.plot(*zip(z_e, projected, strict=True), color=GREY, linewidth=0.8)
    axes.plot(*zip(code, projected, strict=True), color=VERMILION, linewidth=3, alpha=0.4)
    axes.set(xlim=(-0.05, 3.9), ylim=(-0.05, 2.0), aspect="equal")
    axes.axis("off")
    return figure


def latents() -> Figure:
    """What the decoder sees of 400 encoder outputs in two dimensions, by each latent."""
    z_e = np.random.default_rng(5).normal(size=(400, 2)) * (1.1, 0.9)
    indices = hvq.nearest_codes(z_e, CODES)
    frequency = np.bincount(np.asarray(indices), minlength=len(CODES)).astype(np.float32)
    frequent = hvq.frequent_codes(frequency, num_frequent=NUM_FREQUENT)
    figure = Figure(figsize=(8.4, 2.5), layout="constrained")
    for axes, mode in zip(figure.subplots(1, len(LATENTS), sharex=True, sharey=True), LATENTS, strict=True):
        seen = np.asarray(hvq.hybrid_latent(z_e, CODES, indices, frequent, mode=mode).z_bar)
        for code in CODES:
            axes.axline((0, 0), code, color="0.88", linewidth=0.8, zorder=0)
        axes.plot(*z_e.T, ".", color="0.72", markersize=2.5, zorder=1, label="the encoder's output")
        plain = LATENTS[mode].codes_with(CODE, frequent)
        axes.plot(*seen[~plain[indices]].T, ".", color=latent_color(mode), markersize=3)
        axes.plot(*CODES[~plain].T, "o", color="black", markerfacecolor="white", markersize=5, label="code")
        style = {"color": "black", "markerfacecolor": latent_color(mode), "markersize": 8}
        axes.plot(*CODES[plain].T, "s", **style, label="code that the decoder sees")
        axes.set(title=mode, xlim=(-2.7, 2.7), ylim=(-2.2, 2.2), xticks=[], yticks=[], aspect="equal")
    axes.plot([], ".", color=latent_color(mode), markersize=3, label="other vector that the decoder sees")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def bins() -> Figure:
    """The signed lengths of one code in four bins of least squared error."""
    lengths = np.random.default_rng(0).gamma(9.0, 1.1, 4000)
    centroids = fit_bins(lengths, np.zeros(len(lengths), int), num_codes=1, num_bins=4, per_code=False)[0]
    figure = Figure(figsize=(4.6, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(lengths, bins=60, color="0.85")
    for number, border in enumerate((centroids[1:] + centroids[:-1]) / 2):
        axes.axvline(border, color=GREY, linewidth=0.8, linestyle=":", label=None if number else "border of a bin")
    for number, centroid in enumerate(centroids):
        label = None if number else "what is transmitted"
        axes.axvline(centroid, color=latent_color("projected"), linewidth=1.5, label=label)
    axes.set(xlabel="signed length ρ of one code", ylabel="positions", yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def curves() -> Figure:
    """The error and the perplexity of a codebook that is in use, and of one that has collapsed."""
    runs = {
        "moving averages, from data": "vq-ema_data_init-seed_0",
        "gradient, uniform": "vq-gradient_uniform_init-seed_0",
    }
    figure = Figure(figsize=(8.4, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (label, name), color in zip(runs.items(), (BLUE, VERMILION), strict=True):
        with np.load(CODEBOOKS / f"{name}.npz") as arrays:
            left.semilogy(arrays["reconstruction"], color=color, linewidth=0.8, label=label)
            right.plot(arrays["perplexity"], color=color, linewidth=0.8)
    left.set(xlabel="step", ylabel="reconstruction error")
    right.set(xlabel="step", ylabel="perplexity, K = 512", ylim=(0, 512))
    for axes in (left, right):
        axes.grid(color="0.9", linewidth=0.6)
    left.legend(frameon=False)
    return figure


if __name__ == "__main__":
    draw_all()
    for given in sys.argv[1:]:
        show_run(Path(given))
