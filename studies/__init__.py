"""Studies: training runs compared. `train.py` trains the cells of a study, `write_pages.py` shows their results."""

from collections.abc import Callable
from pathlib import Path

from studies.cells import Cell
from studies.codebooks.cells import cells as codebooks
from studies.defaults.cells import cells as defaults
from studies.report.cells import cells as report
from studies.samples.cells import cells as samples
from studies.stability.cells import cells as stability

STUDIES: dict[str, Callable[[], list[Cell]]] = {
    "stability": stability,
    "codebooks": codebooks,
    "defaults": defaults,
    "samples": samples,
    "report": report,
}


def find_folder(study: str) -> Path:
    """Return the folder with the text, table and plots of a study."""
    return Path(__file__).parent / study


def find_results(study: str) -> Path:
    """Return the folder with the results of a study."""
    return find_folder(study) / "results"
