"""Examples in docstrings as code, for the pages of the reference."""

import doctest
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Puts doctests in fences: to Markdown, the lines that start with `>>>` are quotations."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute when it has been read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    """Return a docstring with a fence around each run of doctests."""
    lines, inside = [], False
    ends = {example.lineno + example.source.count("\n") + example.want.count("\n") for example in examples(docstring)}
    starts = {example.lineno for example in examples(docstring)}
    for number, line in enumerate([*docstring.splitlines(), ""]):
        if inside and number in ends - starts:
            lines.append("```")
            inside = False
        if not inside and number in starts:
            lines.append("```pycon")
            inside = True
        lines.append(line)
    return "\n".join(lines)


def examples(docstring: str) -> list[doctest.Example]:
    """Return the doctests in a docstring."""
    return doctest.DocTestParser().get_examples(docstring)
