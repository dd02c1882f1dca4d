"""The tabs of images drawn from the prior: whole ones, and completions of an image."""

import abc
import math

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import Button, Div, LayoutDOM, Slider

from hvq_jax.explore.drawing import DrawingControls, class_control, labels
from hvq_jax.explore.edited import chosen
from hvq_jax.explore.picture import Picture
from hvq_jax.explore.session import Session
from hvq_jax.explore.sheets import Sheet
from hvq_jax.runs.results import Decoded

_SHEET = 560  # pixels of the longer side


class DrawnTab(abc.ABC):
    """A sheet of drawn images; a click on one of them takes it in hand."""

    title: str
    hint: str

    def __init__(self, session: Session, drawing: DrawingControls) -> None:
        """Make the tab, with an empty sheet."""
        self.session, self.drawing = session, drawing
        self.name = self.title.lower()
        self.picture = Picture(f"{self.name}_sheet", _SHEET, self._take)
        self.button = Button(label=self.title, button_type="primary", width=120, align="end", name=self.name)
        self.button.on_click(self.draw)
        self.decoded: Decoded | None = None
        self.sheet: Sheet | None = None
        self.first = 0  # the number of the first drawn image on the sheet

    def layout(self) -> LayoutDOM:
        """Return the tab."""
        return column(Div(text=self.hint, width=_SHEET), row(*self._controls(), self.button), self.picture.figure)

    def draw(self) -> None:
        """Draw with the settings of the page."""
        self.session.work(f"{self.title}: with new settings, a program is compiled first …", self._draw)

    def _draw(self) -> None:
        self.decoded, before = self._drawn()
        images = self.decoded.images.reshape(-1, *self.decoded.images.shape[-3:])
        self.first = len(before)
        images = np.concatenate([before, images])
        num_columns = max(1, round(math.sqrt(len(images) * 1.25)))
        self.sheet = Sheet(images, num_columns, gap=max(1, images.shape[1] // 14))
        self.picture.show(self.sheet.picture())
        self.picture.without_outline()

    def _take(self, x: float, y: float) -> None:
        if self.sheet is None or self.decoded is None:
            return
        number = self.sheet.number_at(x, y)
        if number is None or number < self.first:
            return
        height, width = self.sheet.images.shape[1:3]
        self.picture.outline(*self.sheet.corner(number), width, height)
        edited = chosen(self.decoded, number - self.first)
        self.session.take(edited.image, edited)

    @abc.abstractmethod
    def _controls(self) -> list[LayoutDOM]:
        """Return the controls beside the button."""

    @abc.abstractmethod
    def _drawn(self) -> tuple[Decoded, np.ndarray]:
        """Return what is drawn, and the images `[n, H, W, C]` to show before it."""


class DrawTab(DrawnTab):
    """Whole images."""

    title = "Draw"
    hint = "Draws images from the prior. Click on one to take it in hand: to complete it, or to edit its latent."

    def __init__(self, session: Session, drawing: DrawingControls) -> None:
        """Make the tab, with an empty sheet."""
        super().__init__(session, drawing)
        self.label = class_control(session.run, in_turn=True)
        self.count = Slider(title="Images", start=1, end=64, step=1, value=20, width=180, name="count")

    def _controls(self) -> list[LayoutDOM]:
        return [self.label, self.count]

    def _draw(self) -> None:
        super()._draw()
        if self.session.image is None:
            self._take(0, 0)

    def _drawn(self) -> tuple[Decoded, np.ndarray]:
        run, count = self.session.run, int(self.count.value)
        given = labels(run, self.label.value, count)
        decoded = run.sample(given, None if given else count, **self.drawing.options())
        return decoded, np.zeros((0, *decoded.images.shape[1:]), np.uint8)


class CompleteTab(DrawnTab):
    """Completions of the image in hand."""

    title = "Complete"
    hint = (
        "Keeps the upper rows of the latent of the image in hand, and draws the others. The first image of the sheet "
        "is the one in hand; click on another to take it instead."
    )

    def __init__(self, session: Session, drawing: DrawingControls) -> None:
        """Make the tab, with an empty sheet."""
        super().__init__(session, drawing)
        self.label = class_control(session.run, in_turn=False)
        height = session.run.stream.latent_shape[0]
        half = (height + 1) // 2
        self.rows = Slider(title=f"Rows kept, of {height}", start=0, end=height, step=1, value=half, width=140)
        self.count = Slider(title="Completions", start=1, end=35, step=1, value=11, width=140)

    def _controls(self) -> list[LayoutDOM]:
        return [self.label, self.rows, self.count]

    def _drawn(self) -> tuple[Decoded, np.ndarray]:
        run, image = self.session.run, self.session.image_in_hand()
        height, width = run.stream.latent_shape
        mask = np.broadcast_to(np.arange(height)[:, None] < int(self.rows.value), (height, width))
        given = labels(run, self.label.value, 1)
        decoded = run.complete(image, mask, int(self.count.value), labels=given, **self.drawing.options())
        return decoded, image[None]
