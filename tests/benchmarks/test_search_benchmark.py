"""`benchmarks.search` compares two programs with one result."""

import json

import numpy as np
import pytest

from benchmarks import search
from hvq_jax.quantizers import assignment


def test_whole_and_in_parts_are_two_programs_with_the_same_indices():
    limit = assignment.most_costs
    whole, arguments = search.program((2, 3, 3), 16, 4, 18 * 16)
    parts, _ = search.program((2, 3, 3), 16, 4, 18 * 5)
    assert "while" in parts.as_text()
    assert "while" not in whole.as_text()
    np.testing.assert_array_equal(whole(*arguments), parts(*arguments))
    assert limit is assignment.most_costs


@pytest.mark.parametrize(("limit", "ends"), [(18 * 16, ["the same", ""]), (18 * 5, None)])
def test_a_real_run_prints_and_writes_a_row(limit, ends, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(search, "SIZES", [((2, 3, 3), 16, 4)])
    monkeypatch.setattr("benchmarks.measuring.quiet.SHORTEST", 0.0)
    monkeypatch.setattr(assignment, "most_costs", lambda: limit)
    search.main(["--repetitions=1", f"--json={tmp_path / 'search.json'}"])
    report = json.loads((tmp_path / "search.json").read_text())
    (row,) = report["rows"]
    assert row[:3] == ["18 (2 of 3×3)", "16", "4"]
    assert (row[5:] == ends) == (ends is not None)
    assert f"| {' | '.join(row)} |" in capsys.readouterr().out
    assert len(report["header"]) == len(row)
