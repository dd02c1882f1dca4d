"""A row of `benchmarks/accelerator.py`, its table, and one real run of it in its smallest rows."""

import json
import subprocess
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import accelerator
from benchmarks.accelerator import (
    HEADER,
    ROWS,
    Measurement,
    cells,
    measure,
    measure_memory,
    parse,
    record,
)
from benchmarks.workloads import device_rows
from benchmarks.workloads.device_rows import Row, make_subject
from hvq_jax.command import exit_status
from hvq_jax.errors import UserError
from hvq_jax.options import walk
from hvq_jax.runs.options import RunOptions
from hvq_jax.training.learning_rates import Rates
from hvq_jax.training.programs import initial_state
from hvq_jax.training.state import adam, train_step

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accelerator.sh"


# A step takes no gradient of the images and none of the last vertical stack: below three times the forward pass.
# The optimizer and the losses, above it, are not the model's, and large beside a batch of four.
@pytest.mark.parametrize("row", [Row("", (16, 24, 3), 4, dim=64, codes=32), Row("", (6, 6), 4, codes=32, layers=3)])
def test_a_training_step_is_three_forward_passes(xla_counts, row):
    stage, options, batch, flop = make_subject(row, "float32", 4)
    optimizer = adam(Rates(1e-3, 1).by_step())
    state = jax.eval_shape(partial(initial_state, stage, options, 0))
    step = partial(train_step, loss_function=stage.loss, optimizer=optimizer, seed=0)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    counted = xla_counts(step, state, batch) - 20 * parameters
    assert 0.9 * 4 * flop < counted < 1.15 * 4 * flop


def measurement(**changes):
    values = dict(
        row="train28",
        dtype="bfloat16",
        batch=128,
        device_kind="NVIDIA H100 80GB HBM3",
        platform="gpu",
        num_devices=2,
        steps=20,
        steps_per_dispatch=10,
        seconds_per_step=0.002,
        flop_per_image=3_000_000_000,
        peak=480e12,
        peak_source="published",
        memory_bytes=3 * 2**30,
        memory_source="peak",
        final_loss=1.0,
        others=0.02,
        kernels=[],
    )
    return Measurement(**{**values, **changes})


def test_a_row_of_the_table_and_of_the_file():
    m = measurement()
    assert m.images_per_second == 64_000
    assert m.utilisation == pytest.approx(0.2)  # 192 TFLOP/s on two devices of 480
    title = "autoencoder, 28×28×1, D = 256"
    assert cells(m) == f"{title} | bfloat16 | 128 | 64,000 | 2.0 | 3,000.0 | 480.00 published | 20.0% | 3,072 peak | 2%"
    assert cells(m).count("|") == HEADER.count("|")
    assert cells(measurement(memory_bytes=None)).endswith(" | 20.0% | unknown | 2%")
    assert record(m)["images_per_second"] == 64_000
    assert record(m)["memory_bytes"] == 3 * 2**30


def test_memory_is_what_the_device_says_or_what_xla_plans(monkeypatch):
    assert measure_memory(5) == (5, "planned")
    assert measure_memory(None) == (None, "planned")

    class Device:
        def __init__(self, peak):
            self.peak = peak

        def memory_stats(self):
            return {"peak_bytes_in_use": self.peak}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(3), Device(7)])
    assert measure_memory(5) == (7, "peak")


@pytest.mark.usefixtures("without_blocks")
def test_several_steps_in_a_dispatch_as_off_the_cpu(monkeypatch):
    class Accelerator:
        platform, device_kind = "gpu", "NVIDIA L4"

    monkeypatch.setattr(jax, "devices", lambda: [Accelerator()])
    monkeypatch.setattr(device_rows, "Parallel", lambda form: accelerator_parallel)
    monkeypatch.setattr(accelerator, "default_steps_per_dispatch", lambda: 2)
    m = measure("tiny", "bfloat16", 16, steps=3)
    assert (m.steps, m.steps_per_dispatch) == (4, 2)
    assert (m.peak, m.peak_source) == (121e12, "published")
    assert np.isfinite(m.final_loss)


accelerator_parallel = device_rows.Parallel("jit")  # whose `num_devices` does not ask for the devices


@pytest.mark.usefixtures("without_blocks")
def test_a_real_run_of_the_smallest_rows(monkeypatch, tmp_path, capsys):
    # In this process: `measure_in_new_process` is tried below.
    monkeypatch.setattr(accelerator, "measure_in_new_process", measure)
    arguments = [
        "--rows=tiny_prior,tiny,tiny_sample",
        "--kernels=3",
        "--steps=2",
        "--dtypes=bfloat16",
        "--batch=8",
        f"--json={tmp_path / 'all.json'}",
    ]
    assert exit_status(partial(accelerator.main, arguments)) == 0
    lines, names = capsys.readouterr().out.splitlines(), ["tiny", "tiny_prior", "tiny_sample"]
    assert lines[0].startswith("4 × cpu (cpu, ")
    assert lines[2] == f"| {HEADER} |"
    assert [line.split(" | ")[:3] for line in lines[4:7]] == [
        [f"| {ROWS[row].title}", "bfloat16", "8"] for row in names
    ]
    rows = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert [row["row"] for row in rows] == names
    for row in rows:
        assert row["peak_source"] == "measured"
        assert row["steps"] == 2
        assert row["utilisation"] > 0
        assert row["kernels"]
    assert np.isfinite([row["final_loss"] for row in rows[:2]]).all()
    assert rows[2]["final_loss"] is None
    assert sum(line == "| kernel | share | calls per step | ms per step |" for line in lines) == 3


def test_a_row_that_fails_is_named_in_one_line(monkeypatch, capsys):
    command = ["--rows=tiny", "--steps=1", "--batch=6", "--dtypes=float32"]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    assert exit_status(partial(accelerator.main, command)) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error: tiny in float32 with a batch of 6 ended with status 1: --batch=6: must be a multiple of"
    )
    assert error.count("\n") == 1


def test_what_xla_says_of_a_failure_is_one_line(monkeypatch, capsys):
    def out_of_memory(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nAllocator: ...")

    monkeypatch.setattr(accelerator, "measure", out_of_memory)
    arguments = ["--measure", "--rows=tiny", "--dtypes=float32", "--batch=8"]
    assert exit_status(partial(accelerator.main, arguments)) == 1
    assert capsys.readouterr().err == "error: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n"


def test_a_process_of_its_own_answers_with_a_measurement():
    m = accelerator.measure_in_new_process("tiny_prior", "float32", 8, 1)
    assert (m.row, m.dtype, m.batch, m.steps) == ("tiny_prior", "float32", 8, 1)
    assert m.seconds_per_step > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows=train28,typo"], "--rows=train28,typo: there is no row 'typo'; choose from train28, train32,"),
        (["--dtypes=float16"], "--dtypes=float16: there is no dtype 'float16'; choose from float32, bfloat16"),
        (["--batch=0"], "--batch=0: must be integers of at least 1, separated by commas"),
        (["--batch=8,many"], "--batch=8,many: must be integers"),
        (["--batch="], "--batch=: must be integers"),
        (["--steps=0"], "--steps=0: must be at least 1"),
        (["--steps=few"], "argument --steps: invalid int value: 'few'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--json=/no/such/folder/a.json"], "--json=/no/such/folder/a.json: the folder does not exist or is not"),
        (["--json=."], "--json=.: must be the name of a file"),
        (["--json="], "--json=: must be the name of a file"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, capsys):
    with pytest.raises(UserError) as error:
        parse(arguments)
    assert str(error.value).startswith(message)
    assert exit_status(partial(accelerator.main, arguments)) == 1
    assert capsys.readouterr().err == f"error: {error.value}\n"


def test_without_options_all_rows_but_the_smallest_are_measured_in_both_dtypes():
    options = parse([])
    assert options.rows == [name for name, row in ROWS.items() if not row.extra]
    assert {"train128", "prior32", "transformer32", "sample32"} < set(options.rows)
    assert options.dtypes == ["float32", "bfloat16"]
    assert options.batch is None
    assert parse(["--batch=64, 128"]).batch == [64, 128]


def test_no_row_is_started_after_the_time_is_up(monkeypatch, capsys):
    monkeypatch.setattr(accelerator, "measure_in_new_process", lambda *case: pytest.fail("started"))
    accelerator.main(["--rows=tiny", "--minutes=0", "--dtypes=float32"])
    assert capsys.readouterr().out == "\ntiny in float32 with a batch of 16 and what follows: no time left\n"


def test_the_prepared_script_measures_rows_and_the_default_config(tmp_path):
    calls = tmp_path / "python"
    calls.write_text('#!/bin/sh\necho "$@"\ncat > /dev/null < /dev/null\n')
    calls.chmod(0o755)
    done = subprocess.run(
        [SCRIPT, str(tmp_path / "results"), str(calls)], capture_output=True, text=True, check=True, timeout=60
    )
    commands = [line.split() for line in done.stdout.splitlines() if line.startswith("-m benchmarks.accelerator")]
    options = [parse([word for word in command[2:] if not word.startswith("--json")]) for command in commands]
    assert {row for each in options for row in each.rows} >= {"train128", "train28", "prior32", "sample32"}
    assert sum(each.minutes for each in options) < 8
    (training,) = (line for line in done.stdout.splitlines() if line.startswith("train.py"))
    config, *overrides = [word for word in training.split()[1:] if word.startswith("--config")]
    assert config == "--config=configs/default.py:vq"
    known = {key for key, _ in walk(RunOptions)}
    assert {word.removeprefix("--config.").split("=")[0] for word in overrides} <= known
