"""An image on the page, enlarged, that can be clicked."""

from collections.abc import Callable

import numpy as np
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, FixedTicker, Range1d
from bokeh.plotting import figure

from hvq_jax.evaluation.palette import VERMILION
from hvq_jax.explore.sheets import rgba

Clicked = Callable[[float, float], None]  # is called with the point (x, y), in pixels of the image from the upper left


class Picture:
    """A figure of at most `size` pixels that shows one image."""

    def __init__(self, name: str, size: int, on_click: Clicked | None = None) -> None:
        """Make an empty figure; `name` finds it in the document."""
        self.size = size
        # Bokeh draws from the lower left, and a y axis that points down would turn images upside down.
        self.figure = figure(
            name=name,
            x_range=Range1d(0, 1),
            y_range=Range1d(0, 1),
            frame_width=size,
            frame_height=size,
            min_border=2,
            margin=(3, 3, 3, 3),
            tools="",
            toolbar_location=None,
            outline_line_color=None,
            background_fill_color=None,
            border_fill_color=None,
        )
        self.figure.axis.visible = False
        self.figure.grid.visible = False
        self._shown = ColumnDataSource({"image": [], "width": [], "height": []})
        self._outlines = ColumnDataSource({"left": [], "right": [], "top": [], "bottom": []})
        self.figure.image_rgba("image", x=0, y=0, dw="width", dh="height", source=self._shown)
        self.figure.quad(source=self._outlines, fill_color=None, line_color=VERMILION, line_width=3, level="overlay")
        self._height = 0
        if on_click is not None:
            self.figure.on_event(Tap, lambda event: on_click(event.x, self._height - event.y) if self._height else None)

    def show(self, image: np.ndarray) -> None:
        """Show `image` `[H, W, C]` uint8 in place of the one before."""
        height, width, _ = image.shape
        scale = self.size / max(height, width)
        if (self._height, self.figure.x_range.end) != (height, width):
            self.figure.update(frame_width=round(width * scale), frame_height=round(height * scale))
            self.figure.x_range.end, self.figure.y_range.end = width, height
        self._height = height
        self._shown.data = {"image": [np.flipud(rgba(image))], "width": [width], "height": [height]}

    def outline(self, left: float, top: float, width: float, height: float) -> None:
        """Draw a frame around a part of the image, given in its pixels from the upper left, in place of the last."""
        top = self._height - top
        edges = {"left": [left], "right": [left + width], "top": [top], "bottom": [top - height]}
        self._outlines.data = edges

    def without_outline(self) -> None:
        """Draw no frame."""
        self._outlines.data = {name: [] for name in self._outlines.data}

    def draw_lines(self, rows: int, columns: int) -> None:
        """Draw the borders between `rows` × `columns` parts over the image."""
        height, width = self.figure.y_range.end, self.figure.x_range.end
        for grid, end, parts in ((self.figure.ygrid, height, rows), (self.figure.xgrid, width, columns)):
            grid.ticker = FixedTicker(ticks=list(np.linspace(0, end, parts + 1)))
            grid.update(grid_line_color="white", grid_line_alpha=0.35, level="overlay")

    def show_lines(self, visible: bool) -> None:
        """Show or hide these borders."""
        self.figure.grid.visible = visible
