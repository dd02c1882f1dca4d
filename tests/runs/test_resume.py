"""Resuming a run after a crash, a signal or damage, and what is rejected so that nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from hvq_jax.runs.workdir import locked, read_description, write_description
from hvq_jax.training import saved_step
from hvq_jax.training.checkpoint import Checkpoints
from tests.workdirs import EVERY_STEP, digests, error_of, records

pytestmark = pytest.mark.usefixtures("without_plots")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished_autoencoder(trained_run):
    return digests(trained_run, "autoencoder"), [r for r in records(trained_run) if r["stage"] == "autoencoder"]


class CrashError(Exception):
    """A stand-in for a power cut."""


def test_stopped_after_any_checkpoint_it_ends_bit_identical(
    tmp_path, monkeypatch, tiny_arguments, finished_autoencoder
):
    save = Checkpoints.save

    def save_then_crash(self, step, *rest):
        save(self, step, *rest)
        if step == 4:  # between two evaluations, in the middle of everything
            self.wait()
            raise CrashError

    arguments = [*tiny_arguments, EVERY_STEP, "--config.stage=autoencoder", f"--workdir={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_then_crash)
        with pytest.raises(CrashError):
            train.main(arguments)
    assert train.main(arguments) == 0
    expected_digests, expected_records = finished_autoencoder
    assert digests(tmp_path / "run", "autoencoder") == expected_digests
    found = records(tmp_path / "run")
    assert [r["step"] for r in found if r["split"] == "train"] == [1, 2, 3, 4, 5, 6]  # each checkpoint ends a record
    ours, theirs = ([r for r in each if r["split"] == "validation"] for each in (found, expected_records))
    assert [(r["step"], r["loss"]) for r in ours] == [(r["step"], r["loss"]) for r in theirs]


def test_asked_to_stop_it_saves_and_ends_bit_identical(tmp_path, tiny_arguments, finished_autoencoder):
    workdir = tmp_path / "run"
    arguments = [*tiny_arguments, "--config.stage=autoencoder", f"--workdir={workdir}"]
    command = [sys.executable, "train.py", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "validation at step 3" in line:  # the last moment that is sure to be before the end
            process.terminate()
            break
    _, error = process.communicate(timeout=600)
    assert (process.returncode, error.count("\n")) == (0, 1)
    assert error.startswith("stopped by SIGTERM, autoencoder saved at step")
    assert train.main(arguments) == 0
    assert digests(workdir, "autoencoder") == finished_autoencoder[0]


def test_interrupted_it_saves_and_ends_bit_identical(
    tmp_path, monkeypatch, tiny_arguments, finished_autoencoder, capsys
):
    save = Checkpoints.save

    def save_then_interrupt(self, step, *rest):
        save(self, step, *rest)
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    arguments = [*tiny_arguments, "--config.stage=autoencoder", f"--workdir={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_then_interrupt)
        assert train.main(arguments) == 130
    assert "interrupted, autoencoder saved at step" in capsys.readouterr().err.splitlines()[-1]
    assert train.main(arguments) == 0
    assert digests(tmp_path / "run", "autoencoder") == finished_autoencoder[0]


def copy_of(trained_run, tmp_path):
    """Return a copy, which no other test holds the lock of."""
    return shutil.copytree(trained_run, tmp_path / "run")


def test_started_again_a_finished_run_changes_nothing(trained_run, tiny_arguments, tmp_path, monkeypatch, capsys):
    read: list[object] = []
    monkeypatch.setattr(saved_step, "read_state", lambda folder, like: read.append(folder))
    copy = copy_of(trained_run, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in copy.glob("checkpoints/*/*/digests/*")}
    summary = (copy / "summary.json").read_text()
    assert train.main([*tiny_arguments, f"--workdir={copy}"]) == 0
    assert "step 1/" not in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in copy.glob("checkpoints/*/*/digests/*")} == before
    assert (copy / "summary.json").read_text() == summary
    assert not read  # that its files are whole is enough
    # The run knows its own config.
    assert train.main([f"--workdir={copy}"]) == 0


def test_a_relative_workdir_and_a_run_that_was_damaged(trained_run, tiny_arguments, tmp_path, monkeypatch, capsys):
    """The newest checkpoint is damaged: the run names it, goes back to the one before, and ends the same."""
    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    expected = digests(copy, "autoencoder")
    newest = copy / "checkpoints" / "autoencoder" / "6"
    for data in (newest / "state").rglob("d/*"):  # all of them, for a merged one is not read any more
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 255
        data.write_bytes(content)
    arguments = [*tiny_arguments, "--config.stage=autoencoder", f"--workdir={os.path.relpath(copy)}"]
    assert train.main(arguments) == 0
    out = capsys.readouterr().out
    assert f"checkpoint {newest} is not usable" in out
    assert "resumes from the checkpoint of step 3" in out
    assert digests(copy, "autoencoder") == expected
    assert (newest.parent / "bad-6").is_dir()


def test_damaged_files_of_a_run_get_one_line(trained_run, tmp_path, capsys):
    copy = copy_of(trained_run, tmp_path)
    (copy / "latents.npz").write_bytes((copy / "latents.npz").read_bytes()[:100])
    assert "latents.npz cannot be read" in error_of([f"--workdir={copy}"], capsys)
    config = json.loads((copy / "config.json").read_text())
    del config["codebook"]["decay"]
    (copy / "config.json").write_text(json.dumps(config))
    assert "codebook.decay" in error_of([f"--workdir={copy}"], capsys)
    (copy / "config.json").write_text("{")
    assert "config.json cannot be read" in error_of([f"--workdir={copy}"], capsys)


def test_the_summary_says_that_the_best_checkpoint_was_damaged(trained_run, tmp_path, capsys):
    copy = copy_of(trained_run, tmp_path)
    bad = copy / "checkpoints" / "autoencoder" / "bad-4"
    shutil.copytree(bad.with_name("6"), bad)
    (bad / "SHA256SUMS").unlink()
    (bad / "metrics" / "metrics").write_text(json.dumps({"mse": 0.0, "loss": 0.0}))
    for _ in range(2):
        assert train.main([f"--workdir={copy}", "--config.stage=autoencoder"]) == 0
        assert "the best checkpoint, that of step 4, is damaged" in capsys.readouterr().out
        assert json.loads((copy / "summary.json").read_text())["autoencoder"]["damaged_best_step"] == 4


def test_another_data_set_under_the_same_name_is_refused(trained_run, tmp_path, capsys):
    copy = copy_of(trained_run, tmp_path)
    write_description(copy, {**read_description(copy), "fingerprint": "another"})
    assert "is not the data set" in error_of([f"--workdir={copy}"], capsys)


def test_a_checkpoint_of_another_model_is_refused_and_kept(trained_run, tmp_path, capsys):
    copy = copy_of(trained_run, tmp_path)
    shutil.rmtree(copy / "checkpoints" / "autoencoder")
    shutil.copytree(copy / "checkpoints" / "prior", copy / "checkpoints" / "autoencoder")
    assert "is of another model" in error_of([f"--workdir={copy}"], capsys)
    assert (copy / "checkpoints" / "autoencoder" / "4").is_dir()


def test_another_config_in_the_same_workdir_is_refused(trained_run, tiny_arguments, tmp_path, capsys):
    copy = copy_of(trained_run, tmp_path)
    before = (copy / "config.json").read_text()
    changed = ["--config.latent.dim=4", "--config.prior.width=4"]
    line = error_of([*tiny_arguments, *changed, f"--workdir={copy}"], capsys)
    assert "latent.dim (8 there, 4 now)" in line
    assert "prior.width (8 there, 4 now)" in line
    assert (copy / "config.json").read_text() == before


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path, tiny_arguments, capsys):
    with locked(tmp_path / "run"):
        line = error_of([*tiny_arguments, f"--workdir={tmp_path / 'run'}"], capsys)
    assert "in use by another run" in line
