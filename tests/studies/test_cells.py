"""The cells of every study, their results and what is shown of them."""

import dataclasses
import errno
import json
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax.errors import UserError
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.options import from_dict
from studies import STUDIES
from studies.cell_numbers import cell_numbers
from studies.cells import Cell
from studies.results import CURVES, collect, is_kept, read, read_curve, read_images, read_validation_curves, thinned
from studies.tables import group_cells, plot, save_figure, table


@pytest.mark.parametrize("study", STUDIES)
def test_every_cell_has_a_valid_config_of_its_own(study, tmp_path):
    seen = set()
    for cell in STUDIES[study]():
        config = parse_command_line([*cell.arguments, f"--workdir={tmp_path}"]).config
        from_dict(config)
        assert (config.seed, config.autoencoder.log_every_steps) == (cell.seed, cell.log_every_steps)
        seen.add(config.to_json_best_effort(sort_keys=True))
    assert len(seen) == len({cell.name for cell in STUDIES[study]()}) == len(STUDIES[study]())


def write_run(cell, runs, losses, test=None):
    """A workdir as `train.py` leaves it, with a loss for each interval between logs."""
    workdir = cell.workdir(runs)
    workdir.mkdir(parents=True)
    of_stage = {"stage": "autoencoder", **dict.fromkeys(CURVES, 1.0)}
    steps = [cell.log_every_steps * (n + 1) for n in range(len(losses))]
    records = [{**of_stage, "split": "train", "step": n, "loss": x} for n, x in zip(steps, losses, strict=True)]
    records += [{"stage": "autoencoder", "split": "validation", "step": 1, "mse": 0.5, "commitment": 0.25}]
    records += [{"stage": "prior", "split": "train", "step": 1, "loss": 0.0}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if test:
        (workdir / "summary.json").write_text(json.dumps({"autoencoder": {"step": 1, "test": test}}))


PLACE = {"devices": "1 × cpu", "jax": "0.10.2"}
CELLS = [Cell("c:projected", {"latent": "projected", "of": "4 groups, a/b"}, seed, ()) for seed in (0, 1)]


def test_a_result_is_kept_and_shown(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    for cell, mse in zip(CELLS, (0.25, 0.75), strict=True):
        assert not is_kept(cell, results)
        write_run(cell, runs, [1.0] * 300, {"mse": mse, "psnr": 20.0, "projection": 0.1, "commitment": 0.4})
        collect(cell, runs, results, PLACE)
        assert is_kept(cell, results)
    row = read(CELLS[0], results)
    assert (row["latent"], row["mse"], row["radial_share"], row["num_spikes"]) == ("projected", 0.25, 0.25, 0)
    np.testing.assert_array_equal(read_curve(CELLS[0], results, "loss"), np.ones(300, np.float32))
    lines = table(group_cells(CELLS), results).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(
        "| projected | 4 groups, a/b | 2 | 1 × cpu | 0.10.2 | 0 ± 0 | 1 ± 0 | 1 ± 0 | 1 ± 0 | 0.5 ± 0.25 |"
    )
    assert "codes used" not in lines[0]  # known of none
    plot(group_cells(CELLS), results, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes()[1:4] == b"PNG"
    held_out = read_validation_curves(CELLS[0], results)
    kept = {name: curve.tolist() for name, curve in held_out.items()}
    assert kept == {"step": [1], "mse": [0.5], "commitment": [0.25]}


def test_rows_of_several_devices_are_split(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    cells = [dataclasses.replace(CELLS[0], seed=seed) for seed in (0, 1, 2)]
    for cell, mse, device in zip(cells, (0.25, 0.5, 0.75), ("1 × H200", "1 × cpu", "1 × cpu"), strict=True):
        write_run(cell, runs, [1.0] * 300, {"mse": mse, "projection": 0.1, "commitment": 0.4})
        collect(cell, runs, results, {**PLACE, "devices": device})
    lines = table(group_cells(cells), results).splitlines()[2:]
    assert [line.split(" | ")[2:4] for line in lines] == [["1", "1 × H200"], ["2", "1 × cpu"]]
    numbers, name = cell_numbers(cells, results), "projected/4 groups, a/b"
    assert [numbers[f"{name} on 1 × {device}/mse"] for device in ("H200", "cpu")] == [0.25, 0.625]
    assert (numbers[f"{name} on 1 × cpu/±/mse"], numbers[f"{name} on 1 × cpu/seeds"]) == (0.125, 2)
    assert numbers[f"{name} on 1 × cpu/seed 2/mse"] == 0.75
    for prefix in ("*", "projected/*"):
        assert (numbers[f"{prefix}/least/mse"], numbers[f"{prefix}/most/mse"]) == (0.25, 0.75)
    assert f"{name}/mse" not in numbers
    assert f"{name}/mse" in cell_numbers(cells[1:], results)


def test_a_run_that_diverged_is_a_result(tmp_path):
    write_run(CELLS[0], tmp_path / "runs", [1.0] * 250 + [math.inf])
    collect(CELLS[0], tmp_path / "runs", tmp_path / "results", PLACE)
    row = read(CELLS[0], tmp_path / "results")
    assert (row["num_spikes"], row["first_spike"], row["loss_ratio"], row["mse"]) == (1, 251, None, None)
    assert PLACE.items() <= row.items()


def test_spikes_of_negative_losses_are_not_judged(tmp_path):
    write_run(CELLS[0], tmp_path / "runs", [1.0] * 200 + [-1.0] * 100)
    collect(CELLS[0], tmp_path / "runs", tmp_path / "results", PLACE)
    row = read(CELLS[0], tmp_path / "results")
    assert (row["num_spikes"], row["peak"], row["num_steps"]) == (None, None, 300)


@given(st.integers(0, 50_000), st.integers(2, 2_000))
def test_thinned_curves_keep_both_ends_and_differ_little_in_spacing(count, most):
    kept = thinned(count, most)
    assert len(kept) == min(count, most)
    if count:
        assert (kept[0], kept[-1]) == (0, count - 1)
    gaps = np.diff(kept)
    assert (gaps > 0).all()
    assert np.ptp(gaps) <= 1 if len(gaps) else True


def test_stability_is_of_every_step_although_a_curve_is_thinned(tmp_path):
    cell = dataclasses.replace(CELLS[0], num_points=10)
    losses = [1.0] * 300
    losses[250] = 5.0
    write_run(cell, tmp_path / "runs", losses)
    collect(cell, tmp_path / "runs", tmp_path / "results", PLACE)
    row = read(cell, tmp_path / "results")
    assert (row["num_steps"], row["num_spikes"], row["peak"]) == (300, 1, 5.0)
    steps = read_curve(cell, tmp_path / "results", "step")
    assert (len(steps), steps[0], steps[-1]) == (10, 1, 300)
    assert len(read_curve(cell, tmp_path / "results", "loss")) == 10


def test_means_of_several_steps_are_not_judged(tmp_path):
    cell = dataclasses.replace(CELLS[0], log_every_steps=22)
    write_run(cell, tmp_path / "runs", [1.0] * 300)
    collect(cell, tmp_path / "runs", tmp_path / "results", PLACE)
    row = read(cell, tmp_path / "results")
    assert (row["num_steps"], row["num_spikes"], row["peak"]) == (6600, None, None)


def test_reconstructions_are_kept(tmp_path):
    originals = np.arange(16 * 28 * 28, dtype=np.uint8).reshape(16, 28, 28, 1)
    cells = [Cell("c:vq", {"preset": preset, "latent": "vq"}, 0, (), num_images=16) for preset in ("a", "b")]
    for number, cell in enumerate(cells):
        write_run(cell, tmp_path / "runs", [1.0] * 3, {"mse": 0.5, "projection": 0.1, "commitment": 0.4})
        images = {"originals": originals, "reconstructions": originals + np.uint8(number)}
        collect(cell, tmp_path / "runs", tmp_path / "results", PLACE, images)
    kept = read_images(cells[1], tmp_path / "results")
    assert kept[0].dtype == np.uint8
    np.testing.assert_array_equal(kept, (originals, originals + 1))


def test_a_figure_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    class Figure:
        def savefig(self, path, **options):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "curves.png"
    path.write_bytes(b"earlier")
    with pytest.raises(UserError, match=r"cannot write .*curves\.png: No space left"):
        save_figure(Figure(), path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"earlier"]


def test_a_damaged_result_is_named_in_one_line(tmp_path):
    (tmp_path / f"{CELLS[0].name}.json").write_text("{")
    (tmp_path / f"{CELLS[0].name}.npz").write_bytes(b"PK")
    for read_it in (read, read_images, partial(read_curve, name="loss")):
        with pytest.raises(UserError, match=rf"{CELLS[0].name}\.\w+ cannot be read"):
            read_it(CELLS[0], tmp_path)
