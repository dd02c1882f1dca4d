"""The command line of `benchmarks.overhead`; its measurement needs minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--config=imagenet", "there is no config 'imagenet'; choose from quickstart, fashion_mnist, cifar10"),
        ("--steps=99", "--steps=99: must be at least 100"),
        ("--rounds=0", "--rounds=0: must be at least 1"),
    ],
)
def test_bad_input_gets_one_line(option, message):
    command = [sys.executable, "-m", "benchmarks.overhead", option]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not done.stdout
