"""What is said of several runs together: side by side, on the same axes, and where they differ."""

from collections.abc import Callable, Sequence
from typing import Any

from hvq_jax.evaluation.palette import latent_color
from hvq_jax.report.blocks import figure, section
from hvq_jax.report.charts import Point, point_chart
from hvq_jax.report.findings import Detail, Findings
from hvq_jax.report.markup import Element, element, table
from hvq_jax.report.pictures import picture
from hvq_jax.report.sections.rates import bits_of_equal_length
from hvq_jax.report.sections.settings import all_options, in_words
from hvq_jax.report.sections.summary import card_texts, coded_metrics
from hvq_jax.report.sections.training import overlaid
from hvq_jax.runs.options import KEYS

Once = Callable[..., Any]  # of a function and its arguments: returns what it made of them before, or makes it now

_STYLES = ("-", "--", ":", "-.")
_SHOWN = 6  # images
_FEW = 3  # runs whose table leaves room for a caption beside it


def comparison(runs: tuple[Findings, ...], detail: Detail, once: Once) -> list[Element | None]:
    """Return the sections on all runs; `once` makes those that are the same at every level of detail."""
    count = min(detail.examples, _SHOWN)
    return [
        once(_metrics, runs),
        once(_frontier, runs),
        once(_curves, runs),
        _side_by_side(runs, count),
        _samples(runs, count),
        once(_differences, runs),
    ]


def _curves(runs: Sequence[Findings]) -> Element | None:
    looks = [_look(runs, place) for place in range(len(runs))]
    return overlaid(list(zip(runs, looks, strict=True)))


def _look(runs: Sequence[Findings], place: int) -> dict[str, Any]:
    """Return the colour of a run, that of its latent, and what tells it from other runs of the same latent."""
    before = sum(other.mode == runs[place].mode for other in runs[:place])
    return {"color": latent_color(runs[place].mode), "style": _STYLES[before % len(_STYLES)], "marker": before}


def _metrics(runs: Sequence[Findings]) -> Element:
    by_run = [{name: (value, note) for name, value, note in card_texts(found)} for found in runs]
    names = list(dict.fromkeys(name for texts in by_run for name in texts))
    rows = [
        [name, *(element("span", texts[name][0], title=texts[name][1]) if name in texts else "–" for texts in by_run)]
        for name in names
    ]
    header = ["", *(_named(found) for found in runs)]
    counts = sorted({found.num_images for found in runs if found.is_measured})
    measured = f"measured on {' or '.join(f'{count:,}' for count in counts)} test images" if counts else ""
    stored = [found.name for found in runs if not found.is_measured]
    reasons = f"as stored with {' and '.join(stored)}" if stored else ""
    files = [
        f"{coded_metrics(found)['num_images']:,} of {found.name}"
        for found in runs
        if found.is_measured and "coded_bytes" not in found.metrics and "num_images" in coded_metrics(found)
    ]
    of_files = f" Files could not be coded here: their bytes are as stored, by {' and '.join(files)}." if files else ""
    return section(
        "Side by side",
        figure(
            table(header, rows),
            f"The main numbers of each run, {' or '.join(filter(None, (measured, reasons)))}.{of_files}",
            narrow=len(runs) <= _FEW,
        ),
        _same_data(runs),
    )


def _named(found: Findings) -> list[Any]:
    dot = element("span", class_="swatch", style=f"background:{latent_color(found.mode)}")
    return [dot, f" {found.name} ", element("small", found.mode)]


def _same_data(runs: Sequence[Findings]) -> Element | None:
    if len({found.fingerprint for found in runs}) == 1:
        return None
    return element("p", "These runs are of different data: their numbers cannot be compared.", class_="warning")


def _frontier(runs: Sequence[Findings]) -> Element | None:
    """Return the section of rate and distortion: a point for each file, and one for what the prior says."""
    looks = [_look(runs, place) for place in range(len(runs))]
    points, files = [], []
    for found, look in zip(runs, looks, strict=True):
        metrics, form = found.metrics, {"color": look["color"], "marker": look["marker"]}
        if "coded_psnr" in metrics:
            files.append((metrics["coded_bits_per_image"], metrics["coded_psnr"]))
            points.append(Point(f"{found.name}, file", *files[-1], **form))
        if (psnr := found.psnr_of_rounded) is None:
            continue
        if "bits_per_image" in metrics:
            points.append(Point(f"{found.name}, prior", metrics["bits_per_image"], psnr, **form, hollow=True))
        else:
            points.append(Point(f"{found.name}, no prior", bits_of_equal_length(found), psnr, **form, hollow=True))
    if not points:
        return None
    best = frontier(files)
    chart = point_chart(
        f"Rate and distortion of {len(runs)} runs",
        points,
        x_label="bits per image",
        y_label="PSNR, dB",
        joined=[best] if len(best[0]) > 1 else [],
    )
    return section(
        "Rate and distortion",
        figure(
            chart,
            "What an image costs, and how well it comes back: filled points are files that were written and read "
            "back, hollow ones what the prior says before coding (without one, codes of equal length). The dotted "
            "line joins the files that no other beats in both.",
            good="points to the upper left: few bits, high PSNR.",
            bad="points below the line: another of these runs is better and cheaper.",
            narrow=True,
        ),
    )


def frontier(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return the rates and the qualities of the points that no other point beats in both, by their rate.

    >>> frontier([(1.0, 5.0), (2.0, 4.0), (3.0, 9.0)])
    ([1.0, 3.0], [5.0, 9.0])
    """
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return [rate for rate, _ in kept], [quality for _, quality in kept]


def _side_by_side(runs: Sequence[Findings], count: int) -> Element | None:
    """Return the section with the same test images through each run."""
    if len({found.fingerprint for found in runs}) > 1:
        return None
    with_images = [found for found in runs if found.examples is not None]
    if not with_images or not count:
        return None
    first = with_images[0].examples
    assert first is not None
    rows = [("test images", [picture(image, "test image") for image in first.originals[:count]])]
    for found in with_images:
        assert found.examples is not None
        pictures = [
            picture(image, f"reconstruction by {found.name}") for image in found.examples.reconstructions[:count]
        ]
        rows.append((f"{found.name} ({found.mode})", pictures))
    return section(
        "The same images through each run",
        figure(
            _strips(rows),
            "Test images, and below them the reconstructions of each run.",
            good="rows that keep what makes an image: edges, patterns, small parts.",
        ),
    )


def _samples(runs: Sequence[Findings], count: int) -> Element | None:
    rows = [
        (
            f"{found.name} ({found.mode})",
            [picture(found.drawn.images[number], f"sample of {found.name}") for number in found.drawn.shown[:count]],
        )
        for found in runs
        if found.drawn is not None
    ]
    if len(rows) < 2 or not count:
        return None
    return section(
        "Samples of each run", figure(_strips(rows), "Images drawn from the prior of each run, one row per run.")
    )


def _strips(rows: Sequence[tuple[str, list[Element]]]) -> Element:
    return element(
        "div",
        [[element("p", name, class_="head"), element("div", pictures, class_="strip")] for name, pictures in rows],
    )


def _differences(runs: Sequence[Findings]) -> Element:
    """Return the section with the options that are not the same in all runs."""
    options = [all_options(found) for found in runs]
    differing = [key for key in KEYS if any(values[key] != options[0][key] for values in options)]
    rows = [[element("code", key), *(in_words(values[key]) for values in options)] for key in differing]
    if not rows:
        return section("Differences", element("p", "All options are the same."))
    header = ["option", *(_named(found) for found in runs)]
    caption = "The options that are not the same in all runs; all others are equal."
    return section("Differences", figure(table(header, rows), caption))
