"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table_line(cells: Iterable[str]) -> str:
    """Return a line of a table.

    >>> table_line(["latent", "MSE"])
    '| latent | MSE |'
    """
    return f"| {' | '.join(cells)} |"


def table_head(head: Sequence[str]) -> str:
    """Return the first two lines of a table."""
    return f"{table_line(head)}\n{table_line(['---'] * len(head))}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, every line of which ends with a line break."""
    return "".join(f"{line}\n" for line in (table_head(head), *map(table_line, rows)))
