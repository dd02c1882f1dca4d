"""What one open page shares between its parts: the run, the image in hand, and the line that says what goes on."""

import html
from collections import deque
from collections.abc import Callable

import numpy as np
from bokeh.document import Document
from bokeh.models import Div

from hvq_jax.data.decode import ImageError
from hvq_jax.errors import UserError
from hvq_jax.explore.edited import Edited
from hvq_jax.runs.loaded import LoadedRun

Taken = Callable[[np.ndarray, Edited], None]
_UNTIL_SHOWN = 30  # milliseconds, for the line to reach the page before this thread computes


class Session:
    """The state of one open page."""

    def __init__(self, run: LoadedRun, document: Document) -> None:
        """Start with no image in hand."""
        self.run, self.document = run, document
        self.image: np.ndarray | None = None  # [H, W, C] uint8, the image in hand
        self.status = Div(text="", name="status", css_classes=["status"])
        self._listeners: list[Taken] = []
        self._waiting: deque[Callable[[], None]] = deque()

    def on_take(self, listener: Taken) -> None:
        """Call `listener` with each image that is taken in hand, and its latent."""
        self._listeners.append(listener)

    def take(self, image: np.ndarray, edited: Edited) -> None:
        """Take `image` `[H, W, C]` uint8 in hand, with its latent."""
        self.image = image
        for listener in self._listeners:
            listener(image, edited)

    def image_in_hand(self) -> np.ndarray:
        """Return that image; UserError if there is none."""
        if self.image is None:
            raise UserError("there is no image in hand: upload one, or click on a drawn one")
        return self.image

    def work(self, doing: str, compute: Callable[[], None]) -> None:
        """Say what is done, do it after all that was asked for before, and say in one line what went wrong."""
        self.status.text = html.escape(doing)
        self._waiting.append(compute)
        self.document.add_timeout_callback(self._do_next, _UNTIL_SHOWN)

    def _do_next(self) -> None:
        problem = ""
        try:
            self._waiting.popleft()()
        except (UserError, ImageError) as error:
            problem = f"<b>{html.escape(str(error))}</b>"
        self.status.text = problem
