"""Figures of a run: reconstructions, samples and loss curves, saved as PNG files.

Images are uint8, or float in [-1, 1], with one channel (grey) or three. They are drawn pixel by pixel; small images are
enlarged without smoothing. An existing file is replaced only once the new one is complete. A folder that is missing or
not writable raises UserError.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hvq_jax.errors import UserError
from hvq_jax.evaluation.curves import PANELS, Curves, Panel, find_curves, names_of_curves
from hvq_jax.evaluation.palette import QUANTITY_COLORS
from hvq_jax.files import whole_file
from hvq_jax.images import to_uint8

# A power of two, so that sizes in inches convert back to whole pixels.
_PIXELS_PER_INCH = 128

# In pixels.
_TILE_SIDE = 96  # images are enlarged by the integer factor that comes closest to this side
_MAX_ROW_WIDTH = 1440
_MARGIN = 12
_GAP = 4
_LINE_HEIGHT = 20

LARGEST_SHOWN_ERROR = 0.25  # of the range of values, in `error_map`

_KEPT_COLOR = (230, 85, 13)  # of the bar beside the part of an image that was given

_TITLE_FONT = FontProperties(size=9)  # points
_LABEL_FONT = FontProperties(size=7.5)


def error_map(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Return the errors of images as colours: uint8 `[N, H, W, 3]`, light where there is none.

    An error is the absolute difference, averaged over the channels. It becomes darker up to `LARGEST_SHOWN_ERROR` of
    the range of values, and is black from there on: the colours of two figures can be compared.

    >>> black, grey = np.zeros((1, 1, 2, 1), np.uint8), np.array([[[[0], [64]]]], np.uint8)
    >>> error_map(black, grey)[0, 0].tolist()
    [[251, 252, 191], [0, 0, 3]]

    Args:
        originals: `[N, H, W, C]`.
        reconstructions: same shape.
    """
    shown, made = (_to_rgb(images).astype(np.float32) / 255 for images in (originals, reconstructions))
    share = np.abs(shown - made).mean(axis=-1) / LARGEST_SHOWN_ERROR
    colors: np.ndarray = colormaps["magma_r"](np.clip(share, 0, 1), bytes=True)
    return colors[..., :3]


def save_reconstructions(path: str | Path, originals: np.ndarray, reconstructions: np.ndarray, *, title: str) -> None:
    """Save rows of originals, each above the rows of its reconstructions and of their errors (`error_map`).

    Args:
        path: PNG file to write.
        originals: `[N, H, W, C]`.
        reconstructions: same shape.
        title: title of the figure.

    Raises:
        UserError: the shapes are unsupported or differ, or the file cannot be written.
    """
    _check_images(originals, 4)
    if originals.shape != np.shape(reconstructions):
        raise UserError(
            f"originals of shape {originals.shape} cannot be compared with reconstructions of shape "
            f"{np.shape(reconstructions)}"
        )
    tile_width = originals.shape[2] * _enlargement(originals.shape) + _GAP
    num_groups = math.ceil(len(originals) / max(1, _MAX_ROW_WIDTH // tile_width))
    num_columns = math.ceil(len(originals) / num_groups)
    rows = {
        "original": originals,
        "reconstruction": reconstructions,
        f"error (black: ≥ {100 * LARGEST_SHOWN_ERROR:.0f} %)": error_map(originals, reconstructions),
    }
    groups = [_in_rows(images, num_columns) for images in rows.values()]
    tiles = np.stack(groups, axis=1).reshape(len(rows) * num_groups, *groups[0].shape[1:])
    figure = _tile_figure(tiles, row_names=[*rows] * num_groups, rows_per_group=len(rows), title=title)
    _write(figure, path)


def save_samples(
    path: str | Path,
    images: np.ndarray,
    row_names: Sequence[str],
    *,
    title: str,
    column_names: Sequence[str] = (),
    kept: float = 0.0,
) -> None:
    """Save images in rows, such as one row per class, with its name on the left.

    Args:
        path: PNG file to write.
        images: `[rows, columns, H, W, C]`.
        row_names: one name per row.
        title: title of the figure.
        column_names: names above the first columns; a column with an empty name continues the one before it.
        kept: the share of the height, from the top, that was given in the columns of the last name; marked beside them.

    Raises:
        UserError: the images have another shape, the number of names differs from that of rows, or the file cannot be
            written.
    """
    _check_images(images, 5)
    if len(row_names) != len(images):
        raise UserError(f"{len(images)} rows of images need as many names, not {len(row_names)}")
    figure = _tile_figure(_to_rgb(images), row_names=row_names, title=title, column_names=column_names, kept=kept)
    _write(figure, path)


def save_grid(
    path: str | Path,
    images: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> None:
    """Save images in a grid that is as square as N allows, each above its label if labels are given.

    Args:
        path: PNG file to write.
        images: `[N, H, W, C]`.
        labels: one label per image, or None.
        title: title of the figure, or None.

    Raises:
        UserError: the images have another shape, the number of labels differs from that of images, or the file cannot
            be written.
    """
    _check_images(images, 4)
    if labels is not None and len(labels) != len(images):
        raise UserError(f"{len(images)} images need as many labels, not {len(labels)}")
    tiles = _in_rows(images, math.ceil(math.sqrt(len(images))))
    _write(_tile_figure(tiles, captions=labels, title=title), path)


def has_losses(records: Sequence[dict[str, Any]]) -> bool:
    """Return whether `save_loss_curves` has anything to draw."""
    return any(find_curves(panel, records) for panel in PANELS)


def save_loss_curves(path: str | Path, records: Sequence[dict[str, Any]]) -> None:
    """Save the losses of both stages over training steps, on the training and validation splits.

    Args:
        path: PNG file to write.
        records: records of `metrics.jsonl`, with the keys `stage`, `split` ("train" or "validation"), `step` and
            metrics, any of which may be missing. Of two records of the same step the later one is used.

    Raises:
        UserError: there is nothing to draw, or the file cannot be written.
    """
    panels = [panel for panel in PANELS if find_curves(panel, records)]
    if not panels:
        raise UserError(f"no losses to draw in {path}: the run has not logged any yet")
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)  # inches
    figure = Figure((5.0 * len(panels), 3.6), dpi=_PIXELS_PER_INCH, layout=layout)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, panel, find_curves(panel, records))
    _write(figure, path)


# Validation is drawn over the noise of training; the two look different even if each is a single point.
_SPLIT_STYLES: dict[str, dict[str, Any]] = {
    "train": {"linestyle": "-", "linewidth": 0.9, "alpha": 0.5, "marker": "."},
    "validation": {
        "linestyle": "--",
        "linewidth": 1.3,
        "marker": "o",
        "markersize": 4.5,
        "markerfacecolor": "white",
    },
}

# Up to this number every point has a marker; more markers would overlap.
_MAX_MARKED_POINTS = 40


def _draw_panel(axes: Axes, panel: Panel, curves: Curves) -> None:
    colors = dict(zip(panel.quantities, QUANTITY_COLORS, strict=False))
    names = names_of_curves(panel.quantities, curves)
    for (quantity, split), (steps, values) in curves.items():
        if quantity in names:
            style = dict(_SPLIT_STYLES[split], color=colors[quantity])
            if len(steps) > _MAX_MARKED_POINTS:
                style["marker"] = None
            axes.plot(steps, values, **style)
    splits = [split for split in _SPLIT_STYLES if any(split == other for _, other in curves)]
    legend = [Line2D([], [], color=colors[quantity], label=name) for quantity, name in names.items() if len(names) > 1]
    legend += [Line2D([], [], **_SPLIT_STYLES[split], color="0.3", label=split) for split in splits]
    axes.legend(handles=legend, fontsize=8, edgecolor="none", framealpha=0.8)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlabel("training step", fontsize=9)
    axes.set_ylabel(panel.unit, fontsize=9)
    axes.set_yscale(panel.scale)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _check_images(images: np.ndarray, rank: int) -> None:
    shape = np.shape(images)
    if len(shape) != rank or 0 in shape or shape[-1] not in (1, 3):
        expected = "[N, H, W, C]" if rank == 4 else "[rows, columns, H, W, C]"
        raise UserError(f"a figure needs images {expected} with C = 1 or 3, not of shape {shape}")


def _to_rgb(images: np.ndarray) -> np.ndarray:
    if np.asarray(images).dtype != np.uint8:
        images = np.asarray(to_uint8(jnp.asarray(images)))
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def _in_rows(images: np.ndarray, num_columns: int) -> np.ndarray:
    """Arrange images `[N, H, W, C]` as `[rows, columns, H, W, 3]`, filling up the last row with white."""
    num_rows = math.ceil(len(images) / num_columns)
    tiles = np.full((num_rows * num_columns, *images.shape[1:3], 3), 255, np.uint8)
    tiles[: len(images)] = _to_rgb(images)
    return tiles.reshape(num_rows, num_columns, *tiles.shape[1:])


def _enlargement(shape: tuple[int, ...]) -> int:
    return max(1, round(_TILE_SIDE / max(shape[-3:-1])))


def _tile_figure(
    tiles: np.ndarray,
    *,
    row_names: Sequence[str] = (),
    rows_per_group: int | None = None,
    captions: Sequence[str] | None = None,
    title: str | None,
    column_names: Sequence[str] = (),
    kept: float = 0.0,
) -> Figure:
    """Return a figure of tiles, uint8 `[rows, columns, H, W, 3]`, with names left of rows and captions below tiles.

    Column names and `kept` are those of `save_samples`. Gaps between groups of rows are wider than gaps within a group.
    Every text gets the space it needs.
    """
    scale = _enlargement(tiles.shape)
    tiles = tiles.repeat(scale, axis=2).repeat(scale, axis=3)
    num_rows, num_columns, height, width, _ = tiles.shape
    names_width = _widest(row_names, _LABEL_FONT)
    single = [name for name, after in itertools.pairwise([*column_names, "last"]) if name and after]
    column_width = max(width, _widest([*(captions or ()), *single], _LABEL_FONT))
    row_height = height + (_LINE_HEIGHT if captions else 0)

    left = _MARGIN + (names_width + 2 * _GAP if names_width else 0)
    top = _MARGIN + (_LINE_HEIGHT + _GAP if title else 0) + (_LINE_HEIGHT if column_names else 0)
    groups = [row // (rows_per_group or num_rows) for row in range(num_rows)]
    tops = [top + row * (row_height + _GAP) + group * 2 * _GAP for row, group in enumerate(groups)]
    lefts = [left + column * (column_width + _GAP) for column in range(num_columns)]
    right = max(lefts[-1] + column_width, _MARGIN + _widest([title or ""], _TITLE_FONT))
    right = max([right, *(x + _widest([name], _LABEL_FONT) for x, name in zip(lefts, column_names, strict=False))])
    canvas = np.full((tops[-1] + row_height + _MARGIN, right + _MARGIN, 3), 255, np.uint8)
    texts = []  # (x, y, text, alignment, font); y is the middle of the line
    if title:
        texts.append((_MARGIN, _MARGIN + _LINE_HEIGHT // 2, title, "left", _TITLE_FONT))
    for x, name in zip(lefts, column_names, strict=False):
        texts.append((x + (column_width - width) // 2, top - _LINE_HEIGHT // 2, name, "left", _LABEL_FONT))
    for y, name in zip(tops, row_names, strict=False):
        texts.append((left - 2 * _GAP, y + height // 2, name, "right", _LABEL_FONT))
    for index, (y, x) in enumerate(itertools.product(tops, lefts)):
        corner = x + (column_width - width) // 2
        canvas[y : y + height, corner : corner + width] = tiles[divmod(index, num_columns)]
        if kept and index % num_columns >= len(column_names) - 1:
            canvas[y : y + round(kept * height), corner - _GAP + 1 : corner - 1] = _KEPT_COLOR
        if captions and index < len(captions):
            below = y + height + _LINE_HEIGHT // 2
            texts.append((x + column_width / 2, below, captions[index], "center", _LABEL_FONT))
    return _make_figure(canvas, texts)


def _make_figure(canvas: np.ndarray, texts: Sequence[tuple[float, float, str, str, FontProperties]]) -> Figure:
    """Return a figure of `canvas` `[H, W, 3]` uint8, pixel for pixel, with `texts` (see `_tile_figure`) on it."""
    height, width, _ = canvas.shape
    figure = Figure((width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), dpi=_PIXELS_PER_INCH)
    figure.figimage(canvas)
    for x, y, text, alignment, font in texts:
        figure.text(
            x / width,
            1 - y / height,
            text,
            ha=alignment,
            va="center_baseline",
            fontproperties=font,
            parse_math=False,
        )
    return figure


def _widest(texts: Sequence[str], font: FontProperties) -> int:
    """Return the width in pixels of the widest of `texts`."""
    renderer = FigureCanvasAgg(Figure(dpi=_PIXELS_PER_INCH)).get_renderer()
    widths = [renderer.get_text_width_height_descent(text, font, False)[0] for text in set(texts)]
    return math.ceil(max(widths, default=0))


def _write(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=_PIXELS_PER_INCH, facecolor="white")
