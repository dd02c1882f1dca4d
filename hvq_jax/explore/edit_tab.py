"""The tab in which codes and gains of a latent are changed."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import Button, Checkbox, Div, LayoutDOM, Slider, Spinner

from hvq_jax.explore.edited import Edited, Position, codes_with_gain, with_code, with_gain
from hvq_jax.explore.picture import Picture
from hvq_jax.explore.session import Session
from hvq_jax.explore.sheets import Sheet
from hvq_jax.report.code_pictures import code_vectors, decode_alone

_IMAGE, _BEFORE, _PALETTE = 420, 160, 620  # pixels of the longer side
_MOST_IN_PALETTE = 1024
_GAINS = (-1.0, 3.0)  # the slider's range, unless a gain is beyond it


class EditTab:
    """The image in hand with its positions; a click on one selects it."""

    def __init__(self, session: Session) -> None:
        """Make the tab, with no image."""
        self.session, run = session, session.run
        self.edited: Edited | None = None
        self.original: Edited | None = None
        height, width = run.stream.latent_shape
        self.position: Position = (height // 2, width // 2)
        self.with_gain = codes_with_gain(run)
        self._is_following = False  # whether the controls are set to what is selected, and nobody turned them
        self.image = Picture("edited", _IMAGE, self._select_at)
        self.before = Picture("before", _BEFORE)
        self.text = Div(text="Upload an image, or draw one and click on it.", name="position", width=220)
        num_codes = run.stream.num_codes
        self.code = Spinner(title=f"Code, 0 to {num_codes - 1}", low=0, high=num_codes - 1, step=1, name="code")
        self.number = _which("of the codes", run.stream.encoded_shapes["indices"])
        self.gain = Slider(title="Gain", start=_GAINS[0], end=_GAINS[1], step=0.05, value=1, name="gain")
        self.gain.visible = bool(self.with_gain.any())
        self.group = _which("of the gains", run.stream.encoded_shapes["gains"])
        self.lines = Checkbox(label="Show positions", active=True)
        self.reset = Button(label="Undo all", name="reset")
        for widget in (self.code, self.number, self.gain, self.group, self.reset):
            widget.update(width=200, disabled=True)
        self.palette: Palette | None = None
        session.on_take(self._take)
        self.code.on_change("value", lambda name, old, new: self._change_code(new))
        self.gain.on_change("value_throttled", lambda name, old, new: self._change_gain(new))
        self.number.on_change("value", lambda name, old, new: self._follow())
        self.group.on_change("value", lambda name, old, new: self._follow())
        self.lines.on_change("active", lambda name, old, new: self.image.show_lines(new))
        self.reset.on_click(self._undo)

    def layout(self) -> LayoutDOM:
        """Return the tab."""
        hint = "Click on a position, then choose its code or gain: the image is decoded again."
        before = [Div(text="Before:", margin=(10, 5, 0, 5)), self.before.figure]
        controls = [self.text, self.code, self.number, self.gain, self.group, self.reset, self.lines, *before]
        self.below = column(Div())
        return column(Div(text=hint, width=_PALETTE), row(self.image.figure, column(*controls)), self.below)

    def _take(self, image: np.ndarray, edited: Edited) -> None:
        del image
        self.original = edited
        self.before.show(edited.image)
        if self.palette is None and self.code.high < _MOST_IN_PALETTE and edited.indices.ndim == 2:
            self.palette = Palette(self._pictures(), self._pick)
            self.below.children = self.palette.models
        for widget in (self.code, self.number, self.group, self.reset):
            widget.disabled = False
        self._show(edited)
        self.image.draw_lines(*edited.latents.shape[:2])
        self.image.show_lines(self.lines.active)

    def _pictures(self) -> np.ndarray:
        """Return what each code looks like at the middle position of an image of it alone."""
        (vectors,) = code_vectors(self.session.run)
        return decode_alone(self.session.run, vectors, 1)

    def _show(self, edited: Edited) -> None:
        self.edited = edited
        self.image.show(edited.image)
        self._follow()

    def _select_at(self, x: float, y: float) -> None:
        if self.edited is None:
            return
        (rows, columns), (height, width) = self.edited.latents.shape[:2], self.edited.image.shape[:2]
        row_, column_ = math.floor(y / height * rows), math.floor(x / width * columns)
        if 0 <= row_ < rows and 0 <= column_ < columns:
            self.position = (row_, column_)
            self._follow()

    def _follow(self) -> None:
        """Set the controls to the position that is selected, and outline it."""
        edited = self.edited
        if edited is None:
            return
        (rows, columns), (height, width) = edited.latents.shape[:2], edited.image.shape[:2]
        row_, column_ = self.position
        self.image.outline(column_ * width / columns, row_ * height / rows, width / columns, height / rows)
        code = int(edited.indices[self.position].reshape(-1)[_chosen(self.number)])
        gain = float(edited.gains[self.position].reshape(-1)[_chosen(self.group)])
        self.text.text = f"Position: row {row_ + 1}, column {column_ + 1}"
        with self._following():
            self.code.value = code
            self.gain.start, self.gain.end = min(_GAINS[0], math.floor(gain)), max(_GAINS[1], math.ceil(gain))
            self.gain.value = gain
            # The page tells of a slider that is released only where this differs, and nobody else sets it back.
            self.gain.set_from_json("value_throttled", gain)
        has_gain = edited.indices.ndim == 2 and bool(self.with_gain[code])
        self.gain.disabled = self.group.disabled = not has_gain
        self.gain.title = "Gain" if has_gain else "Gain: this code is frequent, and seen as it is"
        if self.palette is not None:
            self.palette.outline(code)

    @contextmanager
    def _following(self) -> Iterator[None]:
        self._is_following = True
        try:
            yield
        finally:
            self._is_following = False

    def _pick(self, code: int) -> None:
        if self.edited is not None:
            self.code.value = code

    def _change_code(self, code: int | None) -> None:
        if code is not None and not self._is_following:
            position, number = self.position, _chosen(self.number)
            self._change(lambda edited: with_code(self.session.run, edited, position, int(code), number=number))

    def _change_gain(self, gain: float) -> None:
        if not self._is_following:
            position, group = self.position, _chosen(self.group)
            self._change(lambda edited: with_gain(self.session.run, edited, position, float(gain), group=group))

    def _undo(self) -> None:
        original = self.original
        if original is not None:
            self._change(lambda edited: original)

    def _change(self, change: Callable[[Edited], Edited]) -> None:
        """Change the latent as it is once all earlier changes are made; not that of an image taken in the meantime."""
        original = self.original

        def decode() -> None:
            if self.edited is not None and self.original is original:
                self._show(change(self.edited))

        if original is not None:
            self.session.work("Decoding …", decode)


class Palette:
    """What each code looks like, from dark to bright; a click on one chooses it."""

    def __init__(self, patches: np.ndarray, on_pick: Callable[[int], None]) -> None:
        """Make the palette of patches `[K, p, q, C]` uint8."""
        self.order = np.argsort(patches.reshape(len(patches), -1).mean(axis=1), kind="stable")
        num_columns = math.ceil(math.sqrt(2.5 * len(patches)))
        self.sheet = Sheet(patches[self.order], num_columns, gap=1)
        self.picture = Picture("codes", _PALETTE, self._pick)
        self.picture.show(self.sheet.picture())
        self.on_pick = on_pick

    @property
    def models(self) -> list[LayoutDOM]:
        """The parts of the page."""
        text = "The codes, each as an image of it alone looks in the middle, with gain 1. Click on one to put it there:"
        return [Div(text=text, width=_PALETTE), self.picture.figure]

    def outline(self, code: int) -> None:
        """Draw a frame around a code."""
        place = int(np.flatnonzero(self.order == code)[0])
        self.picture.outline(*self.sheet.corner(place), *self.sheet.images.shape[2:0:-1])

    def _pick(self, x: float, y: float) -> None:
        number = self.sheet.number_at(x, y)
        if number is not None:
            self.on_pick(int(self.order[number]))


def _chosen(which: Spinner) -> int:
    """Return the number that is chosen, from 0; the first while the field is empty."""
    return 0 if which.value is None else int(which.value) - 1


def _which(what: str, shape: tuple[int, ...]) -> Spinner:
    """Return the choice of one of the last axis of `[h, w, n]`; hidden for `[h, w]`."""
    count = shape[2] if len(shape) == 3 else 1
    return Spinner(title=f"Which {what}, 1 to {count}", low=1, high=count, step=1, value=1, visible=count > 1)
