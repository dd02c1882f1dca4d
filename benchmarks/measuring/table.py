"""A Markdown table that is printed line by line, and stored for docs/performance.md."""

from pathlib import Path

from benchmarks.measuring.command import print_header, print_line
from hvq_jax.files import write_json


class Table:
    """Prints its header when it is made, and each row when it is added."""

    def __init__(self, header: list[str]):
        self._header = header
        self._rows: list[list[str]] = []
        print_header(header)

    def add(self, row: list[str]) -> None:
        """Print a row."""
        self._rows.append(row)
        print_line(row)

    def end(self, conditions: str, path: str | None) -> None:
        """Print the conditions of the measurement, and write all to the file of --json, if any."""
        print(f"\n{conditions}")
        if path:
            write_json(Path(path), {"conditions": conditions, "header": self._header, "rows": self._rows})
