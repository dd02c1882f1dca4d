"""The top level of `benchmarks/` holds its commands, and `benchmarks/README.md` lists them."""

import re
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_module_at_the_top_is_a_command_that_is_listed():
    modules = {path.stem for path in BENCHMARKS.glob("*.py")}
    commands = {
        path.stem for path in BENCHMARKS.rglob("*.py") if f"python -m benchmarks.{path.stem}" in path.read_text()
    }
    listed = re.findall(r"^\| `python -m benchmarks\.(\w+)` \|", (BENCHMARKS / "README.md").read_text(), re.MULTILINE)
    assert modules == commands == set(listed)
    assert len(listed) == len(modules)
