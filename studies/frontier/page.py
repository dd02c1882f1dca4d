"""The page of this study."""

import functools
from typing import Any

from hvq_jax.files import read_json, write_text
from studies import find_folder
from studies.frontier.cells import COLOUR, SMALL, Size
from studies.frontier.plots import CODECS, CODECS_OF_PHOTOGRAPHS, plot_bits, plot_frontier
from studies.frontier.report import Study
from studies.page import Page, find_page

_SHOWN = (("vq", "K=128"), ("projected", "G=8"), ("combined", "G=16"), ("frequency", "step=0.4"))


@functools.cache
def _study(size: Size = SMALL) -> Study:
    return Study(size)


def _redraw() -> None:
    study, folder = _study(), find_folder("frontier")
    write_text(folder / "table.md", study.points())
    plot_frontier(study.made, study.trainings, study.results, folder / "frontier.png", codecs=CODECS)
    plot_frontier(study.made, study.trainings, study.results, folder / "static.png", rate="static")
    colour = _study(COLOUR)
    if colour.made:
        codecs = CODECS_OF_PHOTOGRAPHS
        plot_frontier(colour.made, colour.trainings, colour.results, folder / "colour.png", codecs=codecs)
    plot_bits(study.made, list(_SHOWN), study.results, folder / "bits.png")


def _tables() -> dict[str, str]:
    colour = {name: getattr(_study(COLOUR), name)() for name in ("progress", "points", "bd_rates")}
    return {**_study().tables(), **{f"colour {name}": text for name, text in colour.items()}}


def _numbers() -> dict[str, float]:
    colour = {f"colour/{name}": number for name, number in _study(COLOUR).numbers().items()}
    return {**_study().numbers(), **colour, **_numbers_of_emoji()}


def _numbers_of_emoji() -> dict[str, float]:
    """Return the numbers of the run on emoji, from its summary."""
    path = find_folder("frontier") / "results" / "emoji" / "summary.json"
    summary: Any = read_json(path, dict, advice="make it with studies.frontier.emoji_samples")
    if summary is None:
        return {}
    of_test = {name: summary[name]["test"] for name in ("autoencoder", "prior", "coded")}
    return {
        "emoji/mse": of_test["autoencoder"]["mse"],
        "emoji/bits": of_test["prior"]["bits_per_image"],
        "emoji/coded": of_test["coded"]["coded_bits_per_image"],
        "emoji/prior step": summary["prior"]["step"],
        "emoji/of the class": summary["samples"]["class_accuracy"],
        "emoji/classifier": summary["samples"]["classifier_test_accuracy"],
    }


PAGE = Page(
    find_page("frontier"),
    redraw=_redraw,
    numbers=_numbers,
    tables=_tables,
    definitions=(
        "from 64 to 8,192 codes",
        "with 1 to 64 gains",
        "the first 2,048 test images",
        "MSE on [-1, 1]",
        "K = 128 codes",
        "With a step of 0.4 they",
        "128 codes with 8 gains each have",
        "1,024 codes have",
        "with 64, it is",
        "with 512 codes has",
        "with 128 codes has",
        "with a step of 1.6",
        ": 95 % intervals",
        "with 16 or 64 lengths per code",
        "with 256 codes, and has",
        "% with 2 groups",
        "% with 8.",
        "95 % interval",
        "trainings of 20 epochs",
        "D = 32",
        "width 16",
        "1,000 steps of 64 images",
        "1,000 of 32 latents",
        "2,048 of 10,000 test images",
        "Patches of 32×32 pixels of 21 colour photographs",
        "GPL 2 or later",
        "LGPL 3",
        "License 1.1",
        "up to K = 512,",
        "of 512 codes has",
        "410 images to train on",
        "from 600 steps",
    ),
)
