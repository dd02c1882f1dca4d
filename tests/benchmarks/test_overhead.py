"""The command line of `benchmarks.overhead`; its measurement needs minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.overhead import main
from hvq_jax.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--steps=99", "--steps=99: must be at least 100"),
        ("--rounds=0", "--rounds=0: must be at least 1"),
    ],
)
def test_bad_input_is_refused(option, message):
    with pytest.raises(UserError, match=f"^{message}"):
        main([option])


def test_the_command_ends_with_one_line():
    command = [sys.executable, "-m", "benchmarks.overhead", "--config=imagenet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "there is no config 'imagenet'; choose from quickstart, fashion_mnist, cifar10" in done.stderr
    assert not done.stdout
