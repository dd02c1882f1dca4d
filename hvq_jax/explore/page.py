"""The page: what is common to all on the left, and a tab for each thing to do."""

import base64
import html
import io

import numpy as np
from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import Div, FileInput, GlobalInlineStyleSheet, LayoutDOM, TabPanel, Tabs

from hvq_jax.data.decode import read_image
from hvq_jax.explore.draw_tab import CompleteTab, DrawTab
from hvq_jax.explore.drawing import DrawingControls
from hvq_jax.explore.edit_tab import EditTab
from hvq_jax.explore.edited import Edited, encoded
from hvq_jax.explore.picture import Picture
from hvq_jax.explore.session import Session
from hvq_jax.runs.loaded import LoadedRun

_STYLE = """
:root { --bokeh-base-font: system-ui, sans-serif; --bokeh-font-size: 14px; }
body { margin: 1rem auto; max-width: 1000px; padding: 0 1rem; }
"""
_IN_HAND = 140  # pixels of the longer side


def add_page(document: Document, run: LoadedRun) -> None:
    """Fill an empty document with the page of a run; what needs a prior is left out where there is none."""
    session = Session(run, document)
    edit = EditTab(session)
    left, tabs = [_image_in_hand(session)], [TabPanel(title="Edit", child=edit.layout())]
    if run.stream.has_prior:
        drawing = DrawingControls(run)
        draw, complete = DrawTab(session, drawing), CompleteTab(session, drawing)
        tabs = [TabPanel(title=tab.title, child=tab.layout()) for tab in (draw, complete)] + tabs
        left.append(column(Div(text="<b>How to draw</b>"), *drawing.models))
        draw.draw()
    name, description = html.escape(run.stream.workdir.name), html.escape(run.description)
    heading = Div(text=f"<h2 style='margin:0'>{name}</h2>{description}", sizing_mode="stretch_width")
    heading.stylesheets = [GlobalInlineStyleSheet(css=_STYLE)]
    body = row(column(*left, width=280), Tabs(tabs=tabs), spacing=24)
    document.add_root(column(heading, session.status, body, sizing_mode="stretch_width"))
    document.title = f"{run.stream.workdir.name} – hvq_jax"


def _image_in_hand(session: Session) -> LayoutDOM:
    """Return the picture of the image in hand, and the choice of a file."""
    picture = Picture("in_hand", _IN_HAND)
    file = FileInput(accept=".png,.jpg,.jpeg,.webp,.bmp,.gif", name="upload", width=250)

    def show(image: np.ndarray, edited: Edited) -> None:
        del edited
        picture.show(image)

    def upload(name: str, old: str, content: str) -> None:
        del name, old
        session.work("Encoding the image …", lambda: session.take(*_uploaded(session.run, content)))

    session.on_take(show)
    file.on_change("value", upload)
    return column(Div(text="<b>The image in hand</b>, or upload one:"), file, picture.figure)


def _uploaded(run: LoadedRun, content: str) -> tuple[np.ndarray, Edited]:
    """Return the image in an uploaded file, in base64, fitted to the run's size, and its latent."""
    height, width, channels = run.stream.model.image_shape
    image, _ = read_image(io.BytesIO(base64.b64decode(content)), (height, width), channels)
    return image, encoded(run, image)
