"""Shared parts of the benchmarks' command lines."""

import argparse
import datetime
import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from hvq_jax.devices.cores import number_of_cores
from hvq_jax.errors import UserError
from hvq_jax.files import read_json
from studies.markdown import table_head, table_line


class Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(message)


def chosen(option: str, text: str, kind: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` listed in `text`, separated by commas, in their own order; raise UserError for others."""
    wanted, names = [name.strip() for name in text.split(",")], list(names)
    for name in wanted:
        if name not in names:
            raise UserError(f"{option}={text}: there is no {kind} {name!r}; choose from {', '.join(names)}")
    return [name for name in names if name in wanted]


def list_integers(option: str, text: str) -> list[int]:
    """Parse integers separated by commas; raise UserError unless each is at least 1."""
    if not re.fullmatch(r"\s*0*[1-9]\d*\s*(,\s*0*[1-9]\d*\s*)*", text):
        raise UserError(f"{option}={text}: must be integers of at least 1, separated by commas")
    return [int(number) for number in text.split(",")]


def check_at_least(options: argparse.Namespace, **lowest: float) -> None:
    """Raise UserError unless each of these options has at least the given value."""
    for name, bound in lowest.items():
        value = getattr(options, name)
        if not value >= bound:
            raise UserError(f"--{name}={value}: must be at least {bound}")


def check_json(path: str | None) -> None:
    """Raise UserError if the file cannot be written; it is written at the end, and nothing may be lost then."""
    if path is None:
        return
    if not path or Path(path).is_dir():
        raise UserError(f"--json={path}: must be the name of a file")
    if not os.access(Path(path).absolute().parent, os.W_OK):
        raise UserError(f"--json={path}: the folder does not exist or is not writable")


def stored(path: str, benchmark: str) -> dict[str, Any]:
    """Return the content of a file of --json of a benchmark; raise UserError if it is none."""
    report: dict[str, Any] | None = read_json(Path(path), dict, advice="give a file that --json has written")
    if report is None or "rows" not in report:
        raise UserError(f"{path}: holds no results of {benchmark}; give a file that --json has written")
    return report


def print_line(line: Iterable[str]) -> None:
    """Print a line of a Markdown table."""
    print(table_line(line), flush=True)


def print_header(header: list[str]) -> None:
    """Print the first two lines of a Markdown table."""
    print(table_head(header), flush=True)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the given packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def conditions(packages: Iterable[str], repetitions: int) -> str:
    """Return one line that describes the conditions of the measurement."""
    names = ", ".join(f"{name} {number}" for name, number in versions(packages).items())
    cores = number_of_cores()
    times = f"{repetitions} repetition{'' if repetitions == 1 else 's'}"
    return f"{names}; {cores} cores; {times}; {datetime.date.today().isoformat()}"
