"""Cells are trained within a limit and resumed, and only what is finished is kept."""

import argparse
import json
import os
import signal
import sys
import threading
import time

import pytest

from hvq_jax.errors import UserError
from studies import train
from studies.cells import Cell
from studies.results import CURVES, is_kept, read_images
from studies.train import Limit, Machine, train_cells

PLACE = {"devices": "1 × cpu", "jax": "0.10.2"}
TEST = {"mse": 0.5, "projection": 0.1, "commitment": 0.4}
SUMMARY = {"autoencoder": {"step": 1, "test": TEST}}
PRIOR = {"step": 1, "autoencoder_step": 1, "test": {"nats_per_latent": 1.0}}
SAMPLES = {"step": 1, "autoencoder_step": 1}

# In place of train.py: counts its starts, and ends or fails as the second argument says; SIGTERM ends it with status 0.
FAKE = """
import json, pathlib, signal, sys, time
workdir, how = pathlib.Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGTERM, lambda *_: (print("stopped by SIGTERM"), sys.exit(0)))
workdir.mkdir(parents=True, exist_ok=True)
with (workdir / "starts").open("a") as file:
    file.write("x")
if how == "fails":
    sys.exit("error: no")
record = {"stage": "autoencoder", "split": "train", "step": 1, **dict.fromkeys(CURVES, 1.0)}
(workdir / "metrics.jsonl").write_text(json.dumps(record) + "\\n")
if how == "diverges":
    sys.exit("error: the loss is nan")
if how == "lasts" and len((workdir / "starts").read_text()) == 1:
    time.sleep(60)
(workdir / "summary.json").write_text(json.dumps(SUMMARY))
""".replace("CURVES", repr(CURVES)).replace("SUMMARY", repr(SUMMARY))

IMAGES = """
import sys
import numpy as np
images = np.zeros((16, 28, 28, 1), np.uint8)
np.savez(sys.argv[1], originals=images, reconstructions=images + 1)
"""


def cell(how):
    return Cell("c:vq", {"latent": how}, 0, (), num_images=16)


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr(
        train,
        "_command",
        lambda cell, runs: [sys.executable, "-c", FAKE, str(cell.workdir(runs)), cell.labels["latent"]],
    )
    monkeypatch.setattr(train, "_reconstruct", lambda cell, runs, file: [sys.executable, "-c", IMAGES, str(file)])
    monkeypatch.setattr(Machine, "found", classmethod(lambda cls, jobs: cls("cpu", jobs, PLACE)))
    monkeypatch.setattr(train, "START", 0.5)


@pytest.fixture
def trained(fakes, tmp_path):
    """Train the cells with these endings; what is printed is in `capsys`."""
    data, study = tmp_path / "data", tmp_path / "study"
    data.mkdir()
    (data / "train-images-idx3-ubyte.gz").touch()

    def of(*cells, seconds=float("inf"), pack=None):
        options = argparse.Namespace(manual_dir=str(data), jobs=2, only="", pack=pack)
        train_cells(list(cells), study, study / "results", tmp_path / "runs", options, Limit(seconds))

    of.results, of.runs = study / "results", tmp_path / "runs"
    return of


def starts(trained, how):
    path = cell(how).workdir(trained.runs) / "starts"
    return len(path.read_text()) if path.exists() else 0


def test_what_is_kept_is_not_trained_again(trained):
    for _ in range(2):
        trained(cell("ends"), cell("diverges"))
    assert (starts(trained, "ends"), starts(trained, "diverges")) == (1, 1)
    originals, reconstructions = read_images(cell("ends"), trained.results)
    assert originals.shape == reconstructions.shape == (16, 28, 28, 1)
    assert is_kept(cell("diverges"), trained.results)
    assert read_images(cell("diverges"), trained.results) is None


def test_a_failure_does_not_keep_others_from_their_results(trained, tmp_path):
    with pytest.raises(UserError, match=r"failed, see their \.log files in .*: fails-seed_0$"):
        trained(cell("fails"), cell("ends"), pack=tmp_path / "packed")
    assert is_kept(cell("ends"), trained.results)
    assert not is_kept(cell("fails"), trained.results)
    assert (tmp_path / "packed" / "study.tar.0").exists()


def test_the_summary_of_a_run_that_was_refused_is_not_kept(trained):
    workdir = cell("fails").workdir(trained.runs)
    workdir.mkdir(parents=True)
    (workdir / "summary.json").write_text(json.dumps(SUMMARY))
    with pytest.raises(UserError):
        trained(cell("fails"))
    assert not is_kept(cell("fails"), trained.results)


def test_a_run_is_stopped_within_the_limit_and_resumed(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "START", 2.0)
    start = time.monotonic()
    seconds = train.SAVE + train._KEEP + train._PACK + 5
    trained(cell("ends"), cell("lasts"), seconds=seconds, pack=tmp_path / "packed")
    assert time.monotonic() - start < seconds
    assert is_kept(cell("ends"), trained.results)
    assert not is_kept(cell("lasts"), trained.results)  # although it ended with status 0
    said = capsys.readouterr().out
    assert "lasts-seed_0: stopped, to be resumed" in said
    assert "1 of 2 cells have a result" in said
    trained(cell("ends"), cell("lasts"))
    assert is_kept(cell("lasts"), trained.results)
    assert (starts(trained, "ends"), starts(trained, "lasts")) == (1, 2)


def test_sigterm_stops_the_runs_and_leaves_time_to_pack(trained, tmp_path, capsys):
    def when_started():
        while not starts(trained, "lasts"):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    trained(cell("ends"))
    start = time.monotonic()
    killer = threading.Thread(target=when_started)
    killer.start()
    trained(cell("ends"), cell("lasts"), pack=tmp_path / "packed")
    killer.join()
    assert time.monotonic() - start < 30
    assert "lasts-seed_0: stopped, to be resumed" in capsys.readouterr().out
    assert (tmp_path / "packed" / "study.tar.0").exists()


def test_nothing_is_started_with_too_little_time_left(trained, capsys):
    trained(cell("ends"), seconds=train.SAVE + train._KEEP + train._PACK + 0.3)
    assert starts(trained, "ends") == 0
    assert "not started, too little time is left" in capsys.readouterr().out


def test_missing_data_is_one_line(trained, tmp_path):
    (tmp_path / "data" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"Fashion-MNIST is not there; install .*dataset-fashion-mnist"):
        trained(cell("ends"))


def test_runs_share_a_gpu_and_take_whole_intervals_on_it(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    of_report = Cell("c:vq", {}, 0, (), log_every_steps=22)
    gpu, cpu = Machine("gpu", 4, PLACE), Machine("cpu", 2, PLACE)
    assert gpu.environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.225"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in cpu.environment()
    assert (gpu.steps_per_dispatch(of_report), cpu.steps_per_dispatch(of_report)) == (22, 1)


@pytest.mark.parametrize(
    ("summary", "stage", "finished"),
    [
        (None, "autoencoder", False),
        (SUMMARY, "autoencoder", True),
        ({**SUMMARY, "prior": PRIOR}, "all", False),
        ({**SUMMARY, "prior": PRIOR, "samples": SAMPLES}, "all", True),
    ],
)
def test_a_run_is_finished_with_its_last_stage(summary, stage, finished, tmp_path):
    of_stage = Cell("c:vq", {"latent": "vq"}, 0, (), stage=stage)
    workdir = of_stage.workdir(tmp_path)
    workdir.mkdir()
    if summary:
        (workdir / "summary.json").write_text(json.dumps(summary))
    assert train.is_finished(of_stage, tmp_path) is finished
