"""How `benchmarks/speed.py` reports its measurements."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring.turns import Measurement
from benchmarks.speed import HEADER, cells, duration, pairwise_ratio, parse, record, verdict
from benchmarks.workloads.ours import make_options
from benchmarks.workloads.rows import OURS, PLAIN, ROWS, TORCH, Row, make_indices
from hvq_jax.errors import UserError

ROOT = Path(__file__).parents[2]
ROW = Row("work", "train", (28, 28, 1), 128, bar=1.25, peers=(TORCH, PLAIN))


def test_the_ratio_is_that_of_neighbours_not_of_medians():
    # The machine is ten times slower in the second repetition, and then in the third for one subject only.
    assert pairwise_ratio([1.0, 10.0, 9.0], [2.0, 20.0, 3.0]) == (0.5, 0.5, 3.0)
    with pytest.raises(ValueError, match="shorter"):
        pairwise_ratio([1.0, 2.0], [1.0])


def test_a_bar_is_met_up_to_and_with_itself():
    assert [verdict(ratio, 1.25) for ratio in (0.01, 1.25, 1.2501, float("nan"))] == ["met", "met", "MISSED", "MISSED"]


@pytest.mark.parametrize(("seconds", "text"), [(0.0123, "12 ms"), (1.5, "1,500 ms"), (12.34, "12.3 s")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_row_has_a_cell_for_every_column():
    everyone = Measurement(
        {OURS: [1.0, 1.5, 2.0], TORCH: [1.0, 1.0, 1.0], PLAIN: [12.0, 13.0, 14.0]},
        {OURS: 625.0, TORCH: 500.0, PLAIN: 1000.0},
        {OURS: 1234.4, TORCH: 510.0, PLAIN: 2000.0},
    )
    memory = ["625 MiB", "500 MiB", "1.25", "1,234 MiB", "510 MiB"]
    ratio = "1.50 (1.00–2.00)"
    assert cells(ROW, everyone) == ["work", "1,500 ms", "1,000 ms", "13.0 s", ratio, *memory, "≤ 1.25", "MISSED"]
    two = Measurement({OURS: [0.02], TORCH: [2.0]}, {OURS: 100.0, TORCH: 50.0}, {OURS: 200.0, TORCH: 60.0})
    memory = ["100 MiB", "50 MiB", "2.00", "200 MiB", "60 MiB"]
    without = ["work", "20 ms", "2,000 ms", "", "0.010 (0.010–0.010)", *memory, "≤ 1.25", "met"]
    assert cells(ROW, two) == without
    assert len(HEADER) == len(without)


def test_the_json_file_has_every_number():
    measurement = Measurement(
        {OURS: [3.0, 1.0], TORCH: [2.0, 2.0]}, {OURS: 100.0, TORCH: 50.0}, {OURS: 200.0, TORCH: 60.0}
    )
    assert record("train28", ROW, measurement) == {
        "row": "train28",
        "work": "work",
        "bar": 1.25,
        "verdict": "met",
        "ratio": {"median": 1.0, "min": 0.5, "max": 1.5},
        "seconds": {OURS: [3.0, 1.0], TORCH: [2.0, 2.0]},
        "stepping_mib": {OURS: 100.0, TORCH: 50.0},
        "process_mib": {OURS: 200.0, TORCH: 60.0},
    }


def test_rows_are_chosen_by_name_in_the_order_of_the_table():
    assert parse(["--rows=sample7, train28,sample7"]).rows == ["train28", "sample7"]
    assert parse([]).rows == list(ROWS)


def test_times_of_a_part_of_the_positions_are_extrapolated_in_proportion():
    assert {name: row.extrapolation for name, row in ROWS.items() if row.torch_positions} == {"sample32": 128}
    assert ROWS["sample7"].extrapolation == ROWS["train28"].extrapolation == 1


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_grids_of_codes_are_those_of_our_network(factor):
    row = Row("work", "decode", (32, 48, 3), 2, bar=1.0, factor=factor)
    model = make_options(row).autoencoder_model(row.shape)
    assert make_indices(row).shape == (2, *model.latent_shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows=train28,typo"], "--rows=train28,typo: there is no row 'typo'; choose from train28, train32,"),
        (["--rows="], "--rows=: there is no row ''; choose from"),
        (["--repetitions=0"], "--repetitions=0: must be at least 1"),
        (["--repetitions=few"], "argument --repetitions: invalid int value: 'few'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--json=/no/such/folder/a.json"], "--json=/no/such/folder/a.json: the folder does not exist or is not"),
    ],
)
def test_bad_input_gets_one_line(arguments, message):
    with pytest.raises(UserError) as error:
        parse(arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_command_ends_with_that_line():
    command = [sys.executable, "-m", "benchmarks.speed", "--rows=typo"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"error: --rows=typo: there is no row 'typo'; choose from {', '.join(ROWS)}\n"
