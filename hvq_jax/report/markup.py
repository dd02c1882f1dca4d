"""HTML as a tree of elements, so that every text and every attribute is escaped in one place."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Any

Element = ET.Element


def element(name: str, /, *content: Any, **attributes: Any) -> Element:
    """Return an element with `content`: elements, texts, numbers, iterables of these, or None for nothing.

    A trailing underscore in the name of an attribute is dropped, and others become dashes; one that is None is left
    out.

    >>> to_html(element("p", "a < b ", element("b", 2), class_="note"))
    '<p class="note">a &lt; b <b>2</b></p>'
    """
    made = Element(name)
    for key, value in attributes.items():
        if value is not None:
            made.set(key.rstrip("_").replace("_", "-"), str(value))
    append(made, content)
    return made


def append(parent: Element, content: Any) -> None:
    """Append `content` of any form that `element` takes."""
    if content is None:
        return
    if isinstance(content, Element):
        parent.append(content)
    elif isinstance(content, Iterable) and not isinstance(content, str):
        for part in content:
            append(parent, part)
    elif len(parent):
        parent[-1].tail = f"{parent[-1].tail or ''}{content}"
    else:
        parent.text = f"{parent.text or ''}{content}"


def table(header: Iterable[Any], rows: Iterable[Iterable[Any]], **attributes: Any) -> Element:
    """Return a table whose first column names the rows, in a box that scrolls where it is too wide for the page."""
    head = element("thead", element("tr", [element("th", cell, scope="col") for cell in header]))
    body = element("tbody", [_row(list(row)) for row in rows])
    return element("div", element("table", head, body, **attributes), class_="scroll")


def _row(cells: list[Any]) -> Element:
    return element("tr", element("th", cells[0], scope="row"), [element("td", cell) for cell in cells[1:]])


def to_html(root: Element) -> str:
    r"""Return the element as HTML, with bytes of paths that are no UTF-8 escaped.

    >>> to_html(element("p", "caf\udce9"))
    '<p>caf\\xe9</p>'
    """
    html = ET.tostring(root, encoding="unicode", method="html")
    return html.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
