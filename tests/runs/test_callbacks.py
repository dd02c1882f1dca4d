"""Callbacks, the summary that a run returns, and runs at once in several threads."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hvq_jax as hvq
from hvq_jax.devices.parallel import Parallel
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.threads import among_others
from tests.workdirs import EVERY_STEP, digests, records

pytestmark = pytest.mark.usefixtures("without_plots")

STAGES = ("autoencoder", "prior")


class PrunedError(Exception):
    """A stand-in for what a sweep raises to end a trial."""


class Recorder(hvq.Callback):
    """Keeps what it is told, and raises at one evaluation."""

    def __init__(self, prune_at=None):
        self.records, self.images, self.summaries, self.threads = [], [], [], set()
        self.prune_at = prune_at

    def on_record(self, stage, step, metrics):
        self.records.append({"stage": stage, "split": "train", "step": step, **metrics})
        self.threads.add(threading.current_thread())

    def on_evaluation(self, stage, step, metrics):
        self.records.append({"stage": stage, "split": "validation", "step": step, **metrics})
        if step == self.prune_at:
            raise PrunedError(metrics["loss"])

    def on_images(self, stage, step, images):
        self.images.append((stage, step, images))

    def on_end(self, summary):
        self.summaries.append(summary)


def run(arguments, workdir, *callbacks, **options):
    line = parse_command_line([*arguments, f"--workdir={workdir}"])
    return hvq.run_experiment(line.config, line.workdir, callbacks=callbacks, **options)


@pytest.fixture(scope="module")
def one_device(tiny_arguments):
    return [*tiny_arguments, EVERY_STEP, "--config.parallel=jit"]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory, one_device):
    """A run that a callback ended at an evaluation, and was resumed, beside others that went to their end.

    Of both trainings: the workdir, the callback, and what came of it.
    """
    folder = tmp_path_factory.mktemp("runs")
    prune, follow, again = Recorder(prune_at=3), Recorder(), Recorder()

    def trial(name):
        if name == "whole":
            return run(one_device, folder / name, follow)
        with pytest.raises(PrunedError) as caught:
            run(one_device, folder / name, prune)
        return caught.value, run(one_device, folder / name, again)

    with ThreadPoolExecutor(2) as pool:
        whole, (error, resumed) = pool.map(trial, ["whole", "pruned"])
    return folder, (follow, whole), (prune, error), (again, resumed)


def test_a_run_returns_its_summary_and_tells_what_it_logs(pruned):
    folder, (follow, summary), _, _ = pruned
    assert summary == json.loads((folder / "whole" / "summary.json").read_text())
    assert {"autoencoder", "prior", "samples", "data"} <= set(summary)
    assert follow.summaries == [summary]
    assert follow.records == records(folder / "whole")
    assert [(stage, step) for stage, step, _ in follow.images] == [("autoencoder", 3), ("autoencoder", 6)]
    (grid,) = follow.images[0][2].values()
    assert (grid.dtype, grid.shape) == (np.uint8, (2 * 28, 16 * 28, 1))


def test_what_a_callback_raises_ends_the_run_with_its_state_saved(pruned):
    folder, _, (prune, error), (again, _) = pruned
    assert [(r["split"], r["step"]) for r in prune.records] == [
        ("train", 1),
        ("train", 2),
        ("train", 3),
        ("validation", 3),
    ]
    assert error.__notes__ == [
        "raised by the callback Recorder.on_evaluation",
        "autoencoder saved at step 3: run the same command again to resume from the last checkpoint",
    ]
    assert prune.summaries == []
    assert again.records[0]["step"] == 4
    assert records(folder / "pruned") == prune.records + again.records


def test_in_threads_runs_do_what_they_do_alone(pruned):
    folder, (_, whole), _, (_, resumed) = pruned
    assert resumed == whole
    for stage in STAGES:
        assert digests(folder / "pruned", stage) == digests(folder / "whole", stage)
    (thread,) = pruned[1][0].threads
    assert thread is not threading.main_thread()


def test_the_lines_of_a_run_in_a_thread_are_named(pruned, one_device, capsys):
    folder = pruned[0]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run, one_device, folder / "whole").result()
    named = capsys.readouterr().out.splitlines()
    assert named
    assert all(line.startswith("whole: ") for line in named)
    run(one_device, folder / "whole")
    alone = [f"whole: {line}" for line in capsys.readouterr().out.splitlines()]
    took = "whole: finished in "  # how long, which differs
    assert [line for line in alone if took not in line] == [line for line in named if took not in line]
    assert len(alone) == len(named)


def test_what_runs_at_once_cannot_share(tmp_path, tiny_arguments, one_device):
    with among_others("other", Parallel("jit"), profiled=False):
        with pytest.raises(UserError, match=r"^--config.parallel=pmap: another run of this process is not over.*=jit"):
            run(tiny_arguments, tmp_path / "run")
        with pytest.raises(UserError, match=r"^a run is profiled only while no other run of this process is: start it"):
            run(one_device, tmp_path / "run", profile_steps=1)
    assert not (tmp_path / "run").exists()


class Misspelt:
    def on_evaluate(self, *arguments): ...


@pytest.mark.parametrize(
    ("callbacks", "line"),
    [
        (Recorder(), "callbacks: must be a list of callbacks, not Recorder"),
        ([Recorder(), print], "callbacks[1]: builtin_function_or_method is called by "),
        ([Misspelt()], "callbacks[0]: Misspelt has a method on_evaluate, but is called by on_record, on_evaluation, "),
    ],
)
def test_what_is_no_callback_is_refused(tmp_path, callbacks, line):
    with pytest.raises(ArgumentError) as caught:
        hvq.run_experiment({}, str(tmp_path / "run"), callbacks=callbacks)
    assert str(caught.value).startswith(line)
    assert not (tmp_path / "run").exists()


def test_what_a_callback_raises_at_the_end_is_raised(pruned, one_device):
    class Ending:
        def on_end(self, summary):
            raise PrunedError

    told = Recorder()
    with pytest.raises(PrunedError):
        run(one_device, pruned[0] / "whole", Ending(), told)
    assert not told.summaries
