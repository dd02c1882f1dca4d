"""What the command lines of the benchmarks have in common."""

import argparse
import datetime
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from hvq_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """One line for a mistake, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(message)


def chosen(option: str, text: str, kind: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that `text` lists, parted by commas, in their own order; UserError for one that there is not."""
    wanted, names = [name.strip() for name in text.split(",")], list(names)
    for name in wanted:
        if name not in names:
            raise UserError(f"{option}={text}: there is no {kind} {name!r}; choose from {', '.join(names)}")
    return [name for name in names if name in wanted]


def check_repetitions(repetitions: int) -> None:
    """Raises UserError unless there is one at least."""
    if repetitions < 1:
        raise UserError(f"--repetitions={repetitions}: must be at least 1")


def check_json(path: str | None) -> None:
    """Raises UserError where a file cannot be written there."""
    if path and not os.access(Path(path).absolute().parent, os.W_OK):
        raise UserError(f"--json={path}: the folder does not exist or cannot be written to")


def print_line(line: Iterable[str]) -> None:
    """A line of a table in Markdown."""
    print(f"| {' | '.join(line)} |", flush=True)


def print_header(header: list[str]) -> None:
    """The first two lines of a table in Markdown."""
    print_line(header)
    print_line(["---"] * len(header))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of these."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def conditions(packages: Iterable[str], repetitions: int) -> str:
    """One line on what was measured with."""
    names = ", ".join(f"{name} {number}" for name, number in versions(packages).items())
    cores = len(os.sched_getaffinity(0))
    return f"{names}; {cores} cores; {repetitions} repetitions; {datetime.date.today().isoformat()}"
