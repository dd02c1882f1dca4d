"""The page: one file with everything in it, small enough to be sent by mail."""

import functools
from collections.abc import Sequence
from importlib.resources import files

from hvq_jax import __version__
from hvq_jax.data.datasets import data_title
from hvq_jax.evaluation.palette import latent_color
from hvq_jax.report.comparison import Once, comparison
from hvq_jax.report.findings import MOST_EXAMPLES, MOST_TILES, Detail, Findings
from hvq_jax.report.markup import Element, element, to_html
from hvq_jax.report.sections.codes import codes, usage
from hvq_jax.report.sections.images import maps, reconstructions
from hvq_jax.report.sections.rates import rates
from hvq_jax.report.sections.samples import judged, samples
from hvq_jax.report.sections.settings import data, settings, versions
from hvq_jax.report.sections.summary import cards
from hvq_jax.report.sections.training import training

MOST_BYTES = 5_000_000
MOST_SIZE = "5 MB"
REMEDY = "for a smaller file, report on fewer runs at a time"

# From the most detail to the least; the first that fits is taken.
_DETAILS = (
    Detail(MOST_EXAMPLES, MOST_TILES),
    Detail(MOST_EXAMPLES, 512),
    Detail(8, 256),
    Detail(6, 128),
    Detail(4, 64),
    Detail(2, 16),
)


def make_page(runs: Sequence[Findings]) -> str:
    """Return the report on one or more runs as HTML of at most 5 MB.

    It shows fewer images and codes of each run where they would take more. Of so many runs that even the fewest take
    more than 5 MB, the page says so.
    """
    once: Once = functools.cache(lambda make, *given: make(*given))  # charts are drawn once for all levels of detail
    for detail in _DETAILS:
        html = _html(_page(tuple(runs), detail, once))
        if len(html.encode()) <= MOST_BYTES:
            return html
    return _html(_page(tuple(runs), detail, once, note=f"Larger than {MOST_SIZE}: {REMEDY}. "))


def _html(page: Element) -> str:
    return "<!doctype html>\n" + to_html(page)


def _page(runs: tuple[Findings, ...], detail: Detail, once: Once, note: str = "") -> Element:
    title = f"Report of {', '.join(found.name for found in runs)}"
    if len(runs) == 1:
        sections = [found for found in _of_run(runs[0], detail, once, 1) if found is not None]
        above: list[Element] = [_cards(runs[0])]
    else:
        sections = [found for found in comparison(runs, detail, once) if found is not None]
        above = []
    for place, found in enumerate(sections):
        found.set("id", f"s{place + 1}")
    links = [element("a", found.findtext("h2"), href=f"#{found.get('id')}") for found in sections]
    body = element(
        "body",
        element("header", element("h1", title), [_subtitle(found) for found in runs], element("nav", links)),
        element("main", above, sections, _each(runs, detail, once) if len(runs) > 1 else None),
        element(
            "footer", element("p", note, f"Made by hvq_jax {__version__}. This file loads nothing from elsewhere.")
        ),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", files("hvq_jax.report").joinpath("style.css").read_text(encoding="utf-8")),
    )
    return element("html", head, body, lang="en")


def _subtitle(found: Findings) -> Element:
    stream = found.run.stream
    grid = "×".join(map(str, stream.latent_shape))
    several = "".join(f", {length} per position" for length in stream.options.quantizer.index_shape)
    data_name = data_title(stream.options.data.name) if stream.image_shape else "given latents"
    swatch = element("span", class_="swatch", style=f"background:{latent_color(found.mode)}")
    text = f" {found.name}: {data_name}; latent {found.mode}, {grid} positions, {stream.num_codes:,} codes{several}"
    return element("p", swatch, text, class_="soft")


def _cards(found: Findings) -> Element:
    made = cards(found)
    made.set("style", f"--run:{latent_color(found.mode)}")
    return made


def _of_run(found: Findings, detail: Detail, once: Once, number: int) -> list[Element | None]:
    return [
        once(training, found),
        reconstructions(found, detail),
        samples(found, detail),
        once(judged, found),
        once(rates, found),
        maps(found, detail),
        codes(found, detail, once(usage, found), f"atlas-{number}"),
        once(data, found),
        once(settings, found),
        once(versions, found),
    ]


def _each(runs: Sequence[Findings], detail: Detail, once: Once) -> list[Element]:
    """Return everything on each run, folded."""
    return [
        element(
            "details",
            element("summary", f"All of {found.name}"),
            _cards(found),
            _of_run(found, detail, once, number),
            class_="run",
        )
        for number, found in enumerate(runs, start=1)
    ]
