"""How `benchmarks/waiting.py` times commands and reports them."""

import pytest

from benchmarks import waiting
from benchmarks.measuring.quiet import Quietly
from benchmarks.waiting import HEADER, ROWS, Place, Row, Times, cells, compared_cells, main, measure, parse, table
from hvq_jax.errors import UserError
from hvq_jax.files import write_json

WORK = "sum(i * i for i in range(3_000_000))"
ROW = {"row": "help", "title": "the help text", "command": "python", "cpu": [2.0, 4.0, 3.0], "wall": [9.0, 5.0, 7.0]}
FASTER = {**ROW, "cpu": [0.5, 0.25, 0.75], "wall": [0.5, 0.5, 0.5]}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, tmp_path, "")


def test_cpu_time_is_that_of_work_and_not_of_waiting_and_of_all_processes(place):
    waited = place.time(["-c", "import time; time.sleep(0.3)"])
    worked = place.time(["-c", WORK])
    in_a_child = place.time(["-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{WORK}'])"])
    assert waited.wall > 0.3
    assert worked.cpu > waited.cpu
    assert in_a_child.cpu > waited.cpu


def test_a_command_is_ended_at_the_line_that_is_waited_for(place):
    program = "import time\nprint('first', flush=True)\nprint('step 1/9', flush=True)\ntime.sleep(600)"
    assert place.time(["-c", program], until="step 1/").wall < 60


@pytest.mark.parametrize(
    ("program", "until"),
    [("import sys; sys.exit('it broke')", None), ("import sys; print('it broke', file=sys.stderr)", "step 1/")],
)
def test_a_command_that_fails_is_no_measurement(place, program, until):
    with pytest.raises(UserError, match="failed: it broke"):
        place.time(["-c", program], until=until)


@pytest.mark.parametrize("name", ROWS)
def test_no_row_but_its_own_times_the_preparation_of_data_or_the_training_of_the_run(name, tmp_path, monkeypatch):
    commands = []
    place = Place(waiting._ROOT, tmp_path, "")
    monkeypatch.setattr(Place, "time", lambda _, arguments, **options: commands.append(arguments) or Times(0, 0))
    waiting.make_what_is_needed([name], place, None)
    made, commands[:] = [*commands], []
    measure(name, place, 1, Quietly())
    if any(str(place.data_dir) in " ".join(command) for command in commands):
        assert made == [["-c", waiting._PREPARE_MINI, str(place.data_dir)]]
    if any(str(place.run) in " ".join(command) for command in commands):
        assert [command[0] for command in made] == ["train.py"]


@pytest.mark.parametrize(("warmed", "calls"), [(True, 4), (False, 3)])
def test_a_row_is_warmed_where_it_finds_compiled_programs(monkeypatch, place, warmed, calls):
    given = iter(range(10))
    row = Row("title", "command", lambda place: Times(next(given), 0.5), is_warmed=warmed)
    monkeypatch.setitem(ROWS, "help", row)
    monkeypatch.setattr("benchmarks.measuring.quiet.share_of_others", lambda before, after: 0.0)
    measured = measure("help", place, 3, Quietly())
    assert measured["cpu"] == list(range(calls - 3, calls))
    assert measured["wall"] == [0.5] * 3


def test_a_table_has_medians_and_ranges():
    assert cells(ROW) == ["the help text", "`python`", "3.0", "(2.0–4.0)", "7.0", "(5.0–9.0)"]
    assert cells(FASTER)[2:] == ["0.50", "(0.25–0.75)", "0.50", "(0.50–0.50)"]
    assert len(cells(ROW)) == len(HEADER)


def test_an_earlier_version_is_compared_in_cpu_time():
    assert compared_cells(ROW, FASTER) == [
        "the help text",
        "`python`",
        "3.0 (2.0–4.0)",
        "0.50 (0.25–0.75)",
        "0.17",
        "0.50 (0.50–0.50)",
    ]
    other = {**ROW, "row": "sample"}
    header, both, later = table([{"rows": [ROW]}, {"rows": [FASTER, other]}])
    assert len(header) == len(both) == len(later)
    assert later == ["the help text", "`python`", "", "3.0 (2.0–4.0)", "", "7.0 (5.0–9.0)"]


def test_a_stored_table_is_shown_without_measuring(tmp_path, capsys):
    for name, row in (("before", ROW), ("after", FASTER)):
        write_json(tmp_path / f"{name}.json", {"conditions": f"conditions {name}", "rows": [row]})
    main([f"--show={tmp_path / 'before.json'},{tmp_path / 'after.json'}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [f"| {' | '.join(compared_cells(ROW, FASTER))} |", "", "conditions before", "conditions after"]


def test_what_holds_no_results_is_refused_in_one_line(tmp_path):
    write_json(tmp_path / "other.json", {"conditions": "of something else"})
    with pytest.raises(UserError, match=r"other\.json: holds no results of benchmarks\.waiting; give a file that"):
        main([f"--show={tmp_path / 'other.json'}"])
    write_json(tmp_path / "other.json", {"conditions": "", "rows": [ROW]})
    with pytest.raises(UserError, match="give one file, or an earlier and a later one"):
        main([f"--show={','.join([str(tmp_path / 'other.json')] * 3)}"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--rows=typo", "--rows=typo: there is no row 'typo'; choose from help, first,"),
        ("--runs=0", "--runs=0: must be at least 1"),
        ("--checkout=/no/such", "--checkout=/no/such: there is no train.py"),
        ("--run=/no/such", "--run=/no/such: there is no finished run"),
    ],
)
def test_bad_input_of_waiting_gets_one_line(argument, message):
    with pytest.raises(UserError) as error:
        parse([argument])
    assert str(error.value).startswith(message)


def test_the_help_row_is_the_mean_of_all_commands(tmp_path, monkeypatch):
    for name in ("train", "sample"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(
        Place, "time", lambda place, arguments: {"train.py": Times(3, 5), "sample.py": Times(1, 3)}[arguments[0]]
    )
    assert waiting._help(Place(tmp_path, tmp_path, "")) == Times(2, 4)
