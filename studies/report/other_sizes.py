"""Figures 1 and 5 of the course report from the trainings of other studies, which are longer or have more seeds.

    python -m studies.report.other_sizes

Writes `figure-1-longer.png` and `figure-5-seeds.svg` to `studies/report`.
"""

import sys

from matplotlib.figure import Figure

from hvq_jax.command import exit_status
from hvq_jax.evaluation.palette import latent_color
from studies import STUDIES, find_folder, find_results
from studies.cells import Cell
from studies.defaults.cells import LATENTS
from studies.report.figures import average, make_panels
from studies.results import is_kept, read_curve
from studies.tables import save_figure

# (study, labels, title): the settings of each preset, with D = 32
_LONG = (
    ("stability", ("gradient", "both", "17,160"), "settings of reference, 40 epochs"),
    ("defaults", ("projected", "32", "20"), "settings of default, 20 epochs"),
)


def find_cells(study: str, labels: tuple[str, ...]) -> list[Cell]:
    """Return the cells of a study with these labels that have results."""
    return [
        cell
        for cell in STUDIES[study]()
        if tuple(cell.labels.values()) == labels and is_kept(cell, find_results(study))
    ]


def draw_longer_curves_of_projected() -> Figure:
    """Return loss terms of `projected` in long trainings."""
    figure, panels = make_panels(len(_LONG), 2, width=6.5)
    for row, (study, labels, title) in zip(panels, _LONG, strict=True):
        for axes, curve in zip(row, ("codebook", "reconstruction"), strict=True):
            axes.set_title(f"{title}, training: {curve.replace('codebook', 'quantization')}", fontsize="medium")
            for cell in find_cells(study, labels):
                steps, values = (read_curve(cell, find_results(study), name) for name in ("step", curve))
                axes.semilogy(steps, values, linewidth=0.4)
    figure.supxlabel("step")
    return figure


def draw_losses_of_all_seeds() -> Figure:
    """Return the reconstruction loss of all latents at D = 64 and two epochs, one line per seed."""
    figure, ((axes,),) = make_panels(1, 1, width=8)
    for latent in LATENTS:
        for cell in find_cells("defaults", (latent, "64", "2")):
            results = find_results("defaults")
            steps, values = average(*(read_curve(cell, results, name) for name in ("step", "reconstruction")))
            label = latent if cell.seed == 0 else None
            axes.semilogy(steps, values, color=latent_color(latent), linewidth=0.8, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("reconstruction loss, training")
    axes.set_ylim(0.015, 0.08)
    axes.legend()
    return figure


def draw_all() -> None:
    """Write both figures."""
    folder = find_folder("report")
    save_figure(draw_longer_curves_of_projected(), folder / "figure-1-longer.png")
    save_figure(draw_losses_of_all_seeds(), folder / "figure-5-seeds.svg")


if __name__ == "__main__":
    sys.exit(exit_status(draw_all))
