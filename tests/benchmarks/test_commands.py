"""The top level of `benchmarks/` holds its commands; `benchmarks/README.md` lists them; bad input gets one line."""

import importlib
import re
from pathlib import Path

import pytest

from hvq_jax.command import exit_status

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_module_at_the_top_is_a_command_that_is_listed():
    modules = {path.stem for path in BENCHMARKS.glob("*.py")}
    commands = {
        path.stem for path in BENCHMARKS.rglob("*.py") if f"python -m benchmarks.{path.stem}" in path.read_text()
    }
    listed = re.findall(r"^\| `python -m benchmarks\.(\w+)` \|", (BENCHMARKS / "README.md").read_text(), re.MULTILINE)
    assert modules == commands == set(listed)
    assert len(listed) == len(modules)


# The other commands have tests of their own.
@pytest.mark.parametrize(
    ("command", "argument", "message"),
    [
        ("codec_fuzz", "--count=0", "the following arguments are required: --workdir"),
        ("data", "--files=40", "--files=40: must be at least 256"),
        ("data", "--seconds=nan", "--seconds=nan: must be at least 0.01"),
        ("dispatch", "--repetitions=0", "--repetitions=0: must be at least 1"),
        ("scaling", "--devices=1,x", "--devices=1,x: must be integers of at least 1, separated by commas"),
        ("scaling", "--steps=0", "--steps=0: must be at least 1"),
        ("waiting", "--unknown", "unrecognized arguments: --unknown"),
    ],
)
def test_bad_input_gets_one_line(command, argument, message, capsys):
    module = importlib.import_module(f"benchmarks.{command}")
    assert exit_status(lambda: module.main([argument])) == 1
    assert capsys.readouterr() == ("", f"error: {message}\n")
