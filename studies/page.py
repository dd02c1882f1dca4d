"""A page: text around numbers, tables and figures that follow from the stored results of a study."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from studies import STUDIES, find_folder, find_results
from studies.cell_numbers import cell_numbers
from studies.numbers import find_loose_numbers, rewrite
from studies.tables import write

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page in Markdown, and what is written into it; see `studies.numbers` for the form of the comments."""

    path: Path
    redraw: Callable[[], None]  # writes the figures and tables that are files of their own
    numbers: Callable[[], dict[str, float]]
    tables: Callable[[], dict[str, str]] = dict
    definitions: tuple[str, ...] = ()  # phrases with numbers that are no results
    sections: tuple[str, ...] = ()  # headings of the sections in which numbers must be marked; none: the whole page

    @property
    def name(self) -> str:
        """The path in the repository."""
        return str(self.path.relative_to(ROOT))

    def write(self, text: str) -> str:
        """Return `text`, of this page, with its numbers and tables from the stored results."""
        return rewrite(text, self.values, self.texts, self.name)

    def find_loose_numbers(self, text: str) -> list[str]:
        """Return the lines of `text`, of this page, with numbers that follow from nothing."""
        return find_loose_numbers("\n\n".join(self.parts(text)), self.definitions)

    def parts(self, text: str) -> list[str]:
        """Return the sections of `text`, of this page, in which numbers must be marked."""
        if not self.sections:
            return [text]
        return [part for part in text.split("\n## ")[1:] if part.partition("\n")[0] in self.sections]

    @functools.cached_property
    def values(self) -> dict[str, float]:
        """The numbers of the page by name, read once."""
        return self.numbers()

    @functools.cached_property
    def texts(self) -> dict[str, str]:
        """The tables of the page by name, read once."""
        return self.tables()


def find_page(study: str) -> Path:
    """Return the path of a study's page."""
    return find_folder(study) / "README.md"


def redraw_cells(study: str) -> None:
    """Write the table and the plots of a study of cells."""
    write(STUDIES[study](), find_folder(study))


def numbers_of_cells(study: str) -> dict[str, float]:
    """Return the numbers of a study of cells."""
    return cell_numbers(STUDIES[study](), find_results(study))
