"""What `--plan` times: the dispatches that training makes, equally many in every process."""

import jax
import numpy as np
import pytest

import train
from hvq_jax.commands import train as command
from hvq_jax.data.datasets import Split
from hvq_jax.devices import cluster
from hvq_jax.runs import plan
from hvq_jax.training.options import FitOptions


def test_processes_stop_timing_together(monkeypatch):
    slowest = 3  # the dispatch after which the other process, whose clock is another, has measured long enough
    dispatches = []

    def compiled(state, group):
        dispatches.append(group)
        return state, np.zeros(1)

    monkeypatch.setattr(plan, "_SECONDS", 0.0)  # long enough for this process after any dispatch
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        cluster.multihost_utils, "process_allgather", lambda own: np.array([own, len(dispatches) > slowest])
    )
    plan._seconds_per_dispatch(compiled, None, None)
    assert len(dispatches) == slowest + 1


@pytest.mark.parametrize(
    ("options", "taken", "longest"),
    [
        ({"log_every_steps": 8}, 0, 4),
        ({"log_every_steps": 3}, 0, 1),  # three steps are left until each log
        ({"eval_every_steps": 0}, 0, 1),  # and two until the end of each epoch
        ({"log_every_steps": 8}, 13, 1),  # and three until the last step
    ],
)
def test_a_dispatch_that_training_never_makes_is_not_timed(options, taken, longest):
    train = Split(np.zeros((16, 1)), np.zeros(16, np.int32))
    given = {"batch_size": 8, "num_steps": 16, "steps_per_dispatch": 4, "eval_every_steps": 16, **options}
    assert plan.steps_per_dispatch(FitOptions(**given), train, taken=taken) == longest


def test_a_plan_that_is_interrupted_does_not_speak_of_resuming(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "plan_experiment", interrupted)
    assert train.main(["--config=quickstart", f"--workdir={tmp_path}", "--plan"]) == 130
    assert capsys.readouterr().err == "interrupted: nothing was trained\n"
