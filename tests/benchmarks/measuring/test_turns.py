"""The pipe between the processes of `benchmarks/measuring/turns.py`, and the check that both sides compute the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring.turns import require_agreement
from benchmarks.workloads.rows import OURS, PLAIN, TORCH
from hvq_jax.errors import UserError

ROOT = Path(__file__).parents[3]

SUBJECT = """
import time
from benchmarks.measuring.turns import serve

large = bytearray(200 * 2**20)  # as a compiler would, before the repetitions

def number(result):
    global large
    del large
    print("a library speaks")
    return 0.5

serve((lambda: time.sleep(0.25), number))
"""


def test_subjects_have_to_compute_the_same():
    require_agreement("prior", {OURS: 6.0003, TORCH: 6.0})
    for different in (6.001, float("nan")):
        with pytest.raises(UserError, match=r"^prior: plain Flax computes .* and PyTorch 6 from the same weights"):
            require_agreement("prior", {OURS: 6.0, TORCH: 6.0, PLAIN: different})


def test_a_subject_answers_every_line_with_a_repetition_and_its_peaks():
    command = [sys.executable, "-c", SUBJECT]
    done = subprocess.run(command, cwd=ROOT, input="\n\n", capture_output=True, text=True, check=True)
    first, *answers = map(json.loads, done.stdout.splitlines())
    assert first == {"number": 0.5}
    assert done.stderr == "a library speaks\n"
    assert len(answers) == 2
    for answer in answers:
        assert answer["seconds"] >= 0.25
        assert answer["process_mib"] > 200
        assert 0 < answer["stepping_mib"] < 150
