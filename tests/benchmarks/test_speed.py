"""How `benchmarks/speed.py` reports its measurements."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import speed
from benchmarks.measuring.command import stored
from benchmarks.measuring.comparison import Measurement
from benchmarks.peers.torch_settings import TorchSettings
from benchmarks.speed import HEADER, cells, duration, main, pairwise_ratio, parse, record, verdict
from benchmarks.workloads.ours import make_options
from benchmarks.workloads.rows import OURS, ROWS, TORCH, Row, make_indices
from hvq_jax.errors import UserError
from hvq_jax.files import read_json, write_json

ROOT = Path(__file__).parents[2]


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


def measurement(ours, torch, others, plain=None):
    return Measurement(
        {OURS: ours, TORCH: torch},
        {OURS: 625.0, TORCH: 500.0},
        {OURS: 1234.4, TORCH: 510.0},
        others,
        TorchSettings(threads=2, channels_last=True),
        {"2 threads": 1.5, "2 threads, channels-last": 1.0},
        plain,
    )


def test_disturbed_repetitions_count_for_nothing():
    row = record("train28", measurement([1.5, 90.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.031, 0.01, 0.03]), 3)
    assert row["ratio"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert row["median_seconds"] == {OURS: 1.5, TORCH: 1.0}
    assert row["verdict"] == "MISSED"
    assert row["discarded"] == 0.25
    assert row["seconds"][OURS] == [1.5, 90.0, 2.0, 1.0]  # stored all the same, with
    assert row["others"] == [0.0, 0.031, 0.01, 0.03]


def test_nothing_is_judged_where_the_machine_was_not_quiet():
    row = record("train28", measurement([0.5, 0.5, 0.5], [1.0, 1.0, 1.0], [0.0, 0.2, 0.4]), 2)
    assert row["verdict"] == "not judged: the machine was not quiet"
    assert row["ratio"] is None
    assert cells(row)[1:6] == ["", "", "", "", "67% of 3"]


def test_a_row_has_a_cell_for_every_column():
    memory = ["625 MiB", "500 MiB", "1.25", "1,234 MiB", "510 MiB"]
    with_plain = record("train28", measurement([1.0, 1.5, 2.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], plain=13.0), 3)
    times = ["1,500 ms", "1,000 ms", "13.0 s", "1.50 (1.00–2.00)", "0% of 3"]
    end = ["≤ 1", "MISSED", "2 threads, channels-last"]
    assert cells(with_plain) == [ROWS["train28"].title, *times, *memory, *end]
    sampling = record("sample7", measurement([0.02], [2.0], [0.0]), 1)
    times = ["20 ms", "2,000 ms", "", "0.010 (0.010–0.010)", "0% of 1"]
    end = ["≤ 0.025", "met", "2 threads, channels-last"]
    assert cells(sampling) == [ROWS["sample7"].title, *times, *memory, *end]
    assert len(HEADER) == len(cells(sampling))


def test_a_stored_table_is_shown_without_measuring(tmp_path, capsys):
    row = record("train28", measurement([1.0], [1.0], [0.0]), 1)
    write_json(tmp_path / "speed.json", {"conditions": "two cores", "rows": [row]})
    main([f"--show={tmp_path / 'speed.json'}"])
    assert capsys.readouterr().out.splitlines()[2:] == [f"| {' | '.join(cells(row))} |", "", "two cores"]


def test_rows_are_written_as_they_come_and_those_that_do_not_fit_are_named(tmp_path, monkeypatch, capsys):
    clock = iter([0.0, 10.0, 50.0, 60.0])  # the start, and before each row
    monkeypatch.setattr(speed.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(speed, "versions", lambda packages: {})
    monkeypatch.setattr(speed, "conditions", lambda packages, repetitions: "two cores")
    earlier = {"rows": [{"row": "train32", "torch": dataclasses.asdict(TorchSettings(threads=1))}]}
    write_json(tmp_path / "earlier.json", earlier)
    given = {}

    def measure(name, repetitions, *, settings, plain, deadline):
        written = read_json(tmp_path / "speed.json", dict, advice="")
        assert len(written["rows"] if written else []) == len(given)  # the rows before it
        given[name] = (repetitions, settings, plain, deadline)
        return measurement([1.0], [1.0], [0.0])

    monkeypatch.setattr(speed, "measure", measure)
    rows, files = "--rows=train28,train32,encode,sample7", [tmp_path / "earlier.json", tmp_path / "speed.json"]
    options = ["--minutes=1", "--repetitions=1", "--no-plain"]
    main([rows, *options, f"--settings={files[0]}", f"--json={files[1]}"])
    assert given == {"train28": (1, None, False, 60.0), "train32": (1, TorchSettings(threads=1), False, 60.0)}
    assert "Not measured within --minutes=1: encode, sample7\n" in capsys.readouterr().out
    assert [row["row"] for row in stored(str(files[1]), "benchmarks.speed")["rows"]] == ["train28", "train32"]


def test_a_file_without_results_is_named(tmp_path):
    write_json(tmp_path / "other.json", {"a": 1})
    for file in ("other.json", "absent.json"):
        with pytest.raises(UserError, match=f"{file}: holds no results of benchmarks.speed"):
            stored(str(tmp_path / file), "benchmarks.speed")


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
        (["--minutes=0"], "--minutes=0.0: must be at least 0.01"),
        (["--minutes=nan"], "--minutes=nan: must be at least 0.01"),
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
