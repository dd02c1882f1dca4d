"""Write the tables of docs/performance.md that have stored results, from the JSON files in docs/performance.

    python -m benchmarks.speed --minutes=14 --no-plain --json=docs/performance/speed.json
    python -m benchmarks.waiting --json=docs/performance/waiting.json
    python -m benchmarks.write_page

`speed_before.json` is of commit e491762, and `waiting_before.json` of commit 6139cf5, by `benchmarks.waiting
--checkout`. Measures nothing. A table without stored results stays as it is.
"""

import argparse
import re
import sys
from pathlib import Path

from benchmarks import speed, waiting
from benchmarks.measuring.command import Parser, stored
from hvq_jax.command import exit_status
from hvq_jax.files import write_text
from studies.markdown import markdown
from studies.numbers import rewrite

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_RESULTS = PAGE.with_suffix("")


def tables() -> dict[str, str]:
    """Return the tables that have stored results by name, with the conditions that they were measured in."""
    found = {}
    for name in ("speed", "speed_before"):
        if (path := _RESULTS / f"{name}.json").exists():
            measured = stored(str(path), "benchmarks.speed")
            found[name] = _table(speed.HEADER, [*map(speed.cells, measured["rows"])], measured["conditions"])
    if (path := _RESULTS / "waiting.json").exists():
        waited = waiting.stored_reports(f"{_RESULTS / 'waiting_before.json'},{path}")
        header, *rows = waiting.table(waited)
        found["waiting"] = _table(header, rows, waited[-1]["conditions"])
    return found


def written(page: str) -> str:
    """Return the text of the page with its tables as stored."""
    kept = dict(re.findall(r"<!--table (\w+)-->\n(.*?)<!--end-->", page, re.DOTALL))
    return rewrite(page, {}, kept | tables(), PAGE.name)


def _table(header: list[str], rows: list[list[str]], conditions: str) -> str:
    return f"{markdown(header, rows)}\n{conditions[0].upper()}{conditions[1:]}.\n"


def main(arguments: list[str]) -> None:
    """Write the page."""
    Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(arguments)
    text = PAGE.read_text()
    now = written(text)
    if now != text:
        write_text(PAGE, now)
    print(f"{PAGE.name}: {'changed' if now != text else 'as it was'}")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
