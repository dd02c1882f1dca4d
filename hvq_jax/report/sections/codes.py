"""The codebook: how often codes are used, and the atlas of them."""

from typing import Any

import numpy as np

from hvq_jax.evaluation.palette import GREY, ORANGE, latent_color
from hvq_jax.report.blocks import details, figure, section
from hvq_jax.report.charts import Series, line_chart
from hvq_jax.report.codebook import Atlas, CodeUse
from hvq_jax.report.findings import Detail, Findings
from hvq_jax.report.markup import Element, element, table
from hvq_jax.report.pictures import png, sheet

_LISTED = 25  # codes of the table
_LEVEL_STYLES = ("-", "--", ":", "-.")


def usage(found: Findings) -> Element | None:
    """Return the charts of how often codes are used."""
    if found.use is None:
        return None
    return element("div", _usage(found, found.use), _frequencies(found, found.use), class_="figures")


def codes(found: Findings, detail: Detail, charts: Element | None, key: str) -> Element | None:
    """Return the section of the codebook with its `charts`; `key` tells it from those of other runs on the page."""
    if found.use is None or found.atlas is None:
        return None
    return section(
        "Codebook",
        charts,
        details("The most used codes as a table", _listed(found.use)),
        _atlas(found.atlas.of_at_most(detail.tiles), key),
    )


def _usage(found: Findings, use: CodeUse) -> Element:
    levels = np.sort(use.counts, axis=1)[:, ::-1]
    ranks = list(range(1, levels.shape[1] + 1))
    color = latent_color(found.mode)
    series = [
        Series(
            f"codebook {level + 1}" if len(levels) > 1 else "uses",
            ranks,
            counts.tolist(),
            color,
            _LEVEL_STYLES[level % len(_LEVEL_STYLES)],
            marker=level,
        )
        for level, counts in enumerate(levels)
    ]
    unused = int((use.counts == 0).sum())
    chart = line_chart(
        f"Uses of each code in {found.num_images} test images, the most used first",
        series,
        x_label="codes, the most used first",
        y_label="uses",
        filled=len(series) == 1,
    )
    never = f"{unused:,} of {use.counts.size:,} codes are never used" if unused else "every code is used"
    return figure(
        [element("h3", "Use of codes"), chart],
        f"How often each code stands in the latents of {found.num_images:,} test images; {never}.",
        good="a curve that falls slowly and stays above zero.",
        bad="a few codes with nearly all uses: most of the codebook is dead.",
    )


def _frequencies(found: Findings, use: CodeUse) -> Element | None:
    if use.frequency is None:
        return None
    shares = 100 * np.sort(use.frequency, axis=1)[:, ::-1]
    ranks = list(range(1, shares.shape[1] + 1))
    border, text = None, ""
    if use.frequent is not None:
        count = int(use.frequent.sum())
        covered = 100 * float(use.frequency[:, use.frequent].sum()) / len(use.frequency)
        border = (count + 0.5, f"border: {count:,} frequent codes")
        text = (
            f" Codes left of the border are frequent, and cover {covered:.1f} % of all positions: there the decoder "
            "sees the plain code, elsewhere more than that."
        )
    series = [
        Series(
            f"codebook {level + 1}" if len(shares) > 1 else "share of positions",
            ranks,
            each.tolist(),
            GREY if use.frequent is None else ORANGE,
            _LEVEL_STYLES[level % len(_LEVEL_STYLES)],
            marker=level,
        )
        for level, each in enumerate(shares)
    ]
    chart = line_chart(
        "The frequency table, the most frequent code first",
        series,
        x_label="codes, the most frequent first",
        y_label="% of positions",
        border=border,
        filled=len(series) == 1,
    )
    return figure(
        [element("h3", "Frequency table"), chart],
        f"How often the latest training batches used each code: the table F, a moving average.{text}",
        good="the same form as in test images"
        + (", and a border in the falling part of the curve." if border else "."),
        bad="a border beyond all codes in use: then the mask covers everything, and the latent is plain codes."
        if border
        else "one that is much steeper: the test images are of another kind.",
    )


def _listed(use: CodeUse) -> Element:
    total = use.counts.sum(axis=1)
    rows = []
    for level, order in enumerate(use.order):
        for rank, code in enumerate(order[: -(-_LISTED // len(use.order))], start=1):
            row = [f"{rank}", f"{code}", f"{use.counts[level, code]:,}"]
            row.append(f"{100 * use.counts[level, code] / max(total[level], 1):.2f} %")
            row.append("–" if use.frequency is None else f"{100 * use.frequency[level, code]:.2f} %")
            if use.frequent is not None:
                row.append("frequent" if use.frequent[code] else "rare")
            rows.append([f"{level + 1}", *row] if len(use.order) > 1 else row)
    header = ["rank", "code", "uses", "of positions", "in the table F"] + ["mask"] * (use.frequent is not None)
    return table(["codebook", *header] if len(use.order) > 1 else header, rows)


def _atlas(atlas: Atlas, key: str) -> Element:
    """Return all tiles in the order of use; all take their picture from one sheet."""
    pixels, columns, rows = sheet(atlas.images)
    style = element("style", f'#{key} i{{background-image:url("{png(pixels)}")}}')
    places = [
        f"--x:{place % columns / max(columns - 1, 1):.4f};--y:{place // columns / max(rows - 1, 1):.4f}"
        for place in range(len(atlas.tiles))
    ]

    place_of = {(tile.level, tile.code): place for place, tile in enumerate(atlas.tiles)}

    def neighbour(level: int, code: int) -> list[Any]:
        place = place_of.get((level, code))
        return [None if place is None else element("i", style=places[place]), code]

    def about(place: int) -> Element:
        tile = atlas.tiles[place]
        of_level = f" of codebook {tile.level + 1}" if atlas.tiles[-1].level else ""
        uses = f"{tile.count:,} use{'' if tile.count == 1 else 's'}"
        near = [[", " * (number > 0), neighbour(tile.level, code)] for number, code in enumerate(tile.neighbours)]
        return element(
            "span",
            element("i", style=places[place]),
            element("span", element("b", f"code {tile.code}"), f"{of_level}, rank {tile.rank}: {uses}"),
            element("span", "nearest ", near) if near else None,
            class_="about",
        )

    tiles = [
        element("span", element("i", style=places[place]), about(place), class_="tile", tabindex=-1)
        for place in range(len(atlas.tiles))
    ]
    has_all = len(tiles) == atlas.num_codes
    shown = f"all {len(tiles):,}" if has_all else f"the {len(tiles):,} most used"
    nearest = "its nearest codes" if has_all else "its nearest codes of all; of those that are not shown, the numbers"
    label = f"Atlas of {shown} codes, the most used first"
    several = (
        " Codebooks follow one another; a code is shown without those of the others, which the decoder never sees."
        if atlas.tiles[-1].level
        else ""
    )
    return figure(
        [
            style,
            element(
                "div",
                tiles,
                class_="atlas",
                id=key,
                role="img",
                aria_label=label,
                style=f"--columns:{columns};--rows:{rows}",
            ),
        ],
        f"What each code looks like: the middle of an image whose latent has this code at every position, for {shown} "
        f"codes, the most used first. Point at one, or touch it, for its uses and {nearest}.{several}",
        good="tiles that differ: edges, shades and textures of many kinds.",
        bad="many tiles that look the same (codes are wasted), or noise in codes of little use.",
    )
