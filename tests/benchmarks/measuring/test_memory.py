"""Resetting the memory peak, in a new process, because that of the tests is already large."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import memory

ROOT = Path(__file__).parents[3]


def run_program(program):
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system cannot reset the peak")
def test_a_peak_is_forgotten_and_what_comes_later_is_seen():
    start, before, after, later = run_program("""
from benchmarks.measuring.memory import forget_peak, peak_mib
print(peak_mib())
small = [bytes(1000) for _ in range(100_000)]  # 100 MB that malloc keeps when they are freed
print(peak_mib())
del small
assert forget_peak()
print(peak_mib())
large = bytearray(50 * 2**20)
print(peak_mib())
""")
    assert before > start + 90
    assert after < start + 20
    assert 45 < later - after < 60


def test_where_the_system_cannot_the_peak_is_that_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_RESET", tmp_path / "missing" / "clear_refs")
    assert not memory.forget_peak()
    known = memory.peak_mib()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    assert memory.peak_mib() == pytest.approx(known, rel=0.5)
