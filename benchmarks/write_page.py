"""Write the tables of docs/performance.md that have stored results, from the JSON files in docs/performance.

    python -m benchmarks.speed --minutes=14 --no-plain --json=docs/performance/speed.json
    python -m benchmarks.waiting --json=docs/performance/waiting.json           # also floor, networks, search, overhead
    python -m benchmarks.growth --json=docs/performance/growth.json --plots=docs/performance
    python -m benchmarks.quantizers --manual_dir=DIR --json=docs/performance/quantizers.json
    python -m benchmarks.accelerator --dtypes=float32 --batch=16 --steps=3 --json=docs/performance/accelerator_cpu.json
    python -m benchmarks.write_page

`speed_before.json` is of commit e491762, and `waiting_before.json` of commit 6139cf5, by `benchmarks.waiting
--checkout`. Measures nothing. A table without stored results stays as it is.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import accelerator, growth, quantizers, speed, waiting
from benchmarks.measuring.command import Parser, stored
from hvq_jax.command import exit_status
from hvq_jax.files import write_text
from studies.markdown import markdown
from studies.numbers import rewrite

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_RESULTS = PAGE.with_suffix("")


def _speed(report: dict[str, Any]) -> list[list[str]]:
    return [speed.HEADER, *map(speed.cells, report["rows"])]


def _waiting(report: dict[str, Any]) -> list[list[str]]:
    return waiting.table([*waiting.stored_reports(str(_RESULTS / "waiting_before.json")), report])


def _accelerator(report: dict[str, Any]) -> list[list[str]]:
    return [accelerator.HEADER.split(" | "), *map(accelerator.stored_cells, report["rows"])]


def _as_stored(report: dict[str, Any]) -> list[list[str]]:
    return [report["header"], *report["rows"]]


# Header and rows from the file of this name.
TABLES: dict[str, Callable[[dict[str, Any]], list[list[str]]]] = {
    "speed": _speed,
    "speed_before": _speed,
    "waiting": _waiting,
    "growth": lambda report: [growth.SUMMARY, *growth.summary(report["rows"])],
    "quantizers": lambda report: [quantizers.HEADER, *quantizers.rows(report["rows"])],
    "accelerator_cpu": _accelerator,
    **dict.fromkeys(("floor", "networks", "search", "overhead", "files"), _as_stored),
}


def tables() -> dict[str, str]:
    """Return the tables that have stored results by name, with the conditions that they were measured in."""
    found = {}
    for name, cells in TABLES.items():
        if (path := _RESULTS / f"{name}.json").exists():
            report = stored(str(path), f"benchmarks.{name}")
            header, *rows = cells(report)
            found[name] = _table(header, rows, report["conditions"])
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
