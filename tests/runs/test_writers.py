"""TensorBoard, Trackio and Weights & Biases: each record once, also where a run is resumed, and nothing sent."""

import json
import os
import shutil
import socket
import sys
import time

import pytest

import train
from hvq_jax.extras import install_command
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.writers.trackio_runs import Trackio
from tests.workdirs import error_of, records

pytestmark = pytest.mark.usefixtures("without_plots")

TRACKERS = "--config.logging.writers=trackio,wandb"


@pytest.fixture(scope="module", autouse=True)
def nobody_logged_in(tmp_path_factory):
    """An environment without settings and keys of trackers, and with a folder for Trackio's database; the folder."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("WANDB_", "TRACKIO_", "HF_")):
                patch.delenv(name)
        for name in ("NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HF_HOME", "TRACKIO_DIR"):
            patch.setenv(name, str(home / name))
        yield home


@pytest.fixture(autouse=True)
def connected(monkeypatch):
    """The addresses to which this process connects."""
    addresses, connect = [], socket.socket.connect

    def noted(self, address):
        if self.family != getattr(socket, "AF_UNIX", None):
            addresses.append(address[0])
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    yield addresses
    assert set(addresses) <= {"127.0.0.1", "localhost"}


def in_trackio(workdir, project="hvq_jax"):
    """Return the points (name, step, value) of the run's metrics, and its images, as Trackio reads them."""
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run_id = json.loads((workdir / "trackers.json").read_text())["trackio"]["run"]
    (run,) = (run for run in trackio.Api().runs(project) if run.name == f"{workdir.name}-{run_id}")
    assert run.config["latent"]["num_codes"] == 16
    rows = SQLiteStorage.get_logs(project, run.name)
    points = [(name, row["step"], value) for row in rows for name, value in row.items() if name.count("/") == 2]
    return [point for point in points if "/images/" not in point[0]], [p for p in points if "/images/" in p[0]]


_BLOCK = 2**15


def wandb_records(path):
    """Yield the records in a file of Weights & Biases: protocol buffers in LevelDB's format of logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if at + 7 + length > len(content):  # it is being written
            return
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the only or the last part of a record
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def whole_wandb_records(path):
    """Return the records up to that of the end, which the process of Weights & Biases may write a little later."""
    while True:
        found = list(wandb_records(path))
        if found and found[-1].HasField("exit"):
            return found
        time.sleep(0.1)


def in_wandb(workdir):
    """Return the points (name, step, value) of the run's metrics, and its images, in all that was written offline."""
    points, images, rows, runs = [], [], [], set()
    for path in sorted(workdir.glob("wandb/offline-run-*/*.wandb")):
        for record in whole_wandb_records(path):
            if record.HasField("run"):
                runs.add((record.run.run_id, record.run.project, record.run.display_name))
            if record.HasField("history"):
                row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                rows.append(row["_step"])
                (step,) = (value for name, value in row.items() if name.endswith("/step"))
                for name, value in row.items():
                    if name.endswith("/_type"):
                        images.append((name.removesuffix("/_type"), step, value))
                    elif name.count("/") == 2:
                        points.append((name, step, value))
    run_id = json.loads((workdir / "trackers.json").read_text())["wandb"]["run"]
    assert runs == {(run_id, "hvq_jax", workdir.name)}
    assert rows == list(range(len(rows)))  # what is sent from several files in turn is one history
    return points, images


def expected(workdir):
    """Return the points of `metrics.jsonl` and of the test split in `summary.json`."""
    rows = records(workdir)
    for stage, section in json.loads((workdir / "summary.json").read_text()).items():
        if isinstance(section, dict) and "test" in section:
            rows.append({"stage": stage, "split": "test", "step": section["step"], **section["test"]})
    return [
        (f"{row['stage']}/{row['split']}/{name}", row["step"], value)
        for row in rows
        for name, value in row.items()
        if name not in ("stage", "split", "step")
    ]


def without_rates(points):
    """Leave out what differs each time that the same steps are taken."""
    return sorted(point for point in points if not point[0].endswith("_per_second"))


class CrashError(Exception):
    """A stand-in for a power cut."""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory, tiny_arguments, nobody_logged_in):
    """A run that crashed after it had logged a step that it had not saved, and was resumed twice."""
    workdir = tmp_path_factory.mktemp("crashed") / "run"
    arguments = [*tiny_arguments, "--config.stage=autoencoder", TRACKERS.replace("=", "=tensorboard,")]
    arguments.append(f"--workdir={workdir}")
    save = Checkpoints.save

    def crash(self, step, *rest):
        if step == 3:
            raise CrashError
        save(self, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", crash)
        with pytest.raises(CrashError):
            train.main(arguments)
    assert [(r["split"], r["step"]) for r in records(workdir)][-2:] == [("train", 3), ("validation", 3)]
    for _ in range(2):
        assert train.main(arguments) == 0
    return workdir


@pytest.mark.parametrize("written", [in_trackio, in_wandb])
def test_a_resumed_run_goes_on_in_the_same_tracker_run_and_writes_no_step_twice(crashed, written):
    points, images = written(crashed)
    assert without_rates(points) == without_rates(expected(crashed))
    name = "autoencoder/images/originals_over_reconstructions"
    assert [(found, step) for found, step, _ in images] == [(name, 3), (name, 6)]


def test_tensorboard_has_events_beside_trackers(crashed):
    assert len(list((crashed / "events" / "autoencoder").glob("events.out.tfevents.*"))) == 2


@pytest.fixture
def finished(trained_run, tmp_path):
    """A copy of a finished run, and the arguments to start it again with trackers."""
    shutil.copytree(trained_run, tmp_path / "run")
    return tmp_path / "run", [TRACKERS, f"--workdir={tmp_path / 'run'}"]


def test_a_tracker_added_to_a_finished_run_receives_all_of_it_once(finished, tmp_path):
    workdir, arguments = finished
    for _ in range(2):
        assert train.main(arguments) == 0
    assert sorted(in_trackio(workdir)[0]) == sorted(in_wandb(workdir)[0]) == sorted(expected(workdir))
    # A copy is another run.
    shutil.copytree(workdir, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb"))
    assert train.main([TRACKERS, f"--workdir={tmp_path / 'copy'}"]) == 0
    assert (
        sorted(in_trackio(tmp_path / "copy")[0]) == sorted(in_wandb(tmp_path / "copy")[0]) == sorted(expected(workdir))
    )


def test_a_prior_that_is_trained_again_is_beside_the_first_one(finished):
    workdir, arguments = finished
    assert train.main(arguments) == 0
    before = expected(workdir)
    assert train.main([*arguments, "--config.autoencoder.num_steps=8"]) == 0
    after = [(name.replace("prior/", "prior-2/"), step, value) for name, step, value in expected(workdir)]
    assert {name.partition("/")[0] for name, _, _ in after} == {"autoencoder", "prior-2"}
    assert sorted(in_trackio(workdir)[0]) == sorted(in_wandb(workdir)[0]) == sorted({*before, *after})


def test_a_run_goes_on_without_a_tracker_that_fails_and_catches_up(finished, monkeypatch, capsys):
    pytest.importorskip("trackio")
    workdir, (_, argument) = finished
    arguments = ["--config.logging.writers=trackio", argument]

    def fail(self, *arguments):
        raise RuntimeError("no route to host\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(Trackio, "_write", fail)
        assert train.main(arguments) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "trackio failed" in line]
    assert said == [
        "warning: trackio failed (no route to host): this run goes on without it; what it lacks is written when the "
        "run is started again"
    ]
    assert train.main(arguments) == 0
    assert sorted(in_trackio(workdir)[0]) == sorted(expected(workdir))


@pytest.mark.parametrize(
    ("writers", "problem"),
    [
        ("trackio", f"trackio is not installed: {install_command('trackio')}, or leave it out\n"),
        ("tensorboard,wandb", f"wandb is not installed: {install_command('wandb')}, or leave it out\n"),
        (
            "tensorbord",
            "there is no tensorbord: choose one of tensorboard, trackio, wandb, none, or several, separated",
        ),
        ("wandb,none", "there is no none: choose one of"),
    ],
)
def test_a_writer_that_there_is_not_is_refused_before_anything_is_done(
    tmp_path, tiny_arguments, monkeypatch, capsys, writers, problem
):
    for module in ("trackio", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    arguments = [*tiny_arguments, f"--config.logging.writers={writers}", f"--workdir={tmp_path / 'run'}"]
    assert error_of(arguments, capsys).startswith(f"error: --config.logging.writers={writers}: {problem}")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_be_started_ends_the_run(finished, capsys):
    arguments = ["--config.logging.writers=wandb", "--config.logging.project=no/such", finished[1][1]]
    assert error_of(arguments, capsys).startswith("error: --config.logging.writers=wandb: cannot be started (Invalid ")
    file = finished[0] / "trackers.json"
    file.write_text('{"wandb": {"folder": 3}}')
    said = f"error: {file} cannot be read (wandb has no last): delete it and run train.py again\n"
    assert error_of(arguments, capsys) == said
