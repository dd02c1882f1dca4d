"""The building blocks of a page: sections, figures with their captions, cards."""

from collections.abc import Iterable
from typing import Any

from hvq_jax.report.markup import Element, element


def section(title: str, *content: Any) -> Element:
    """Return a section with a heading."""
    return element("section", element("h2", title), content)


def figure(content: Any, shows: str, *, good: str = "", bad: str = "", narrow: bool = False) -> Element:
    """Return a figure with a caption: what it shows, and what good and bad look like.

    Where there is room, the caption stands beside a `narrow` figure.
    """
    caption = element("figcaption", element("p", shows))
    for name, text in (("Good", good), ("Bad", bad)):
        if text:
            caption.append(element("p", element("b", f"{name}: "), text, class_=name.lower()))
    content = element("div", content)
    return element("figure", content, caption, class_="narrow" if narrow else None)


def card(name: str, value: str, note: str = "") -> Element:
    """Return a card with one number."""
    return element(
        "div",
        element("div", name, class_="name"),
        element("div", value, class_="value"),
        element("div", note, class_="note"),
        class_="card",
    )


def details(summary: str, *content: Any) -> Element:
    """Return content that is folded until its summary is clicked."""
    return element("details", element("summary", summary), content)


def grid(rows: Iterable[Iterable[Any]], columns: int, kind: str) -> Element:
    """Return cells in rows of so many columns, which share the width of the page."""
    return element("div", [list(row) for row in rows], class_=f"grid {kind}", style=f"--columns:{columns}")


def percent(share: float) -> str:
    """Return a share of 1 in percent.

    >>> percent(0.853)
    '85 %'
    """
    return f"{100 * share:.0f} %"


def number(value: float, digits: int = 4) -> str:
    """Return a number as people write it: with so many digits, or decimals below 1, and an integer with all of its own.

    >>> number(0.031234), number(1234567), number(1234.56), number(12.0)
    ('0.0312', '1,234,567', '1,235', '12.00')
    """
    if isinstance(value, int):
        return f"{value:,}"
    if not value or abs(value) < 1e-4:
        return f"{value:.{digits - 1}g}"
    places = digits - len(f"{int(abs(value))}") if abs(value) >= 1 else digits
    return f"{value:,.{max(places, 0)}f}"
