"""When reports of training steps are read, and how they are summarised."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.training import step_log as step_log_module
from hvq_jax.training.state import StepReport
from hvq_jax.training.step_log import NotFiniteError, StepLog


class Recorder:
    """A stand-in for a RunLog."""

    def __init__(self):
        self.records, self.lines, self.said = [], [], []

    def record(self, split, step, scalars):
        self.records.append((split, step, scalars))

    def warn(self, line):
        self.said.append(line)

    def advance(self, step):
        self.advanced = step

    def progress(self, step, line):
        self.lines.append((step, line))


def report(*losses, gradient_norm=1.0):
    norms = jnp.full(len(losses), gradient_norm)
    return StepReport(jnp.array(losses), norms, {"twice": 2 * jnp.array(losses)})


def step_log(recorder, start_step=0, items="images"):
    def summarise(metrics):
        return {"largest": float(metrics["twice"].max())}

    def warn(metrics):
        return {"large": f"{metrics['twice'].max()}"} if metrics["twice"].max() > 100 else {}

    stage = types.SimpleNamespace(items=items, summarise_steps=summarise, step_warnings=warn)
    return StepLog(recorder, stage, start_step=start_step, num_steps=10, batch_size=4)


def test_steps_after_the_first_hundred_are_warned_of_once_while_the_fault_lasts():
    recorder = Recorder()
    log, step = step_log(recorder), 0
    intervals = ([99.0] * 60, [99.0] * 40 + [1.0] * 20, [70.0], [80.0], [1.0], [1.0, 90.0])  # warned of above 50
    for losses in intervals:
        log.add(report(*losses))
        step += len(losses)
        log.close_interval(step)
    log.write()
    assert recorder.said == ["warning: 140.0", "warning: 180.0"]


@pytest.mark.parametrize("items", ["images", "latents"])
def test_an_interval_is_summarised_when_it_is_written_and_not_before(items):
    recorder = Recorder()
    log = step_log(recorder, start_step=2, items=items)
    log.add(report(1.0, 2.0))
    log.write()
    assert not recorder.records  # the interval is open
    log.add(report(6.0))
    log.close_interval(5)
    assert not recorder.records  # the next step has not been started
    log.write()
    ((split, step, scalars),) = recorder.records
    assert (split, step) == ("train", 5)
    assert (scalars["loss"], scalars["largest"], scalars["gradient_norm"]) == (3.0, 12.0, 1.0)
    assert scalars[f"{items}_per_second"] > 0
    assert len(scalars) == 4
    log.write()
    assert len(recorder.records) == 1
    assert recorder.lines[0][1].startswith("loss 3.0000, ")
    assert f" {items}/s, " in recorder.lines[0][1]


def test_compilation_counts_for_nothing_and_evaluations_for_the_time_left_only(monkeypatch):
    clock = iter([8.0, 10.0, 18.0, 20.0])  # the first dispatch has compiled; step 2; an evaluation has ended; step 4
    monkeypatch.setattr(step_log_module.time, "monotonic", lambda: next(clock))
    recorder = Recorder()
    log = step_log(recorder)
    for step in (2, 4):
        log.add(report(1.0, 1.0))
        log.close_interval(step)
        log.write()
        assert recorder.advanced == step
        if step == 2:
            log.restart_clock()
    assert [line.rpartition(", ")[2] for _, line in recorder.lines] == ["8 s left", "30 s left"]
    assert [scalars["images_per_second"] for _, _, scalars in recorder.records] == [4.0, 4.0]


def test_what_is_added_after_an_interval_belongs_to_the_next():
    recorder = Recorder()
    log = step_log(recorder)
    log.add(report(1.0))
    log.close_interval(1)
    log.add(report(5.0))
    log.close_interval(2)  # writes the first, so that none is lost
    log.write()
    assert [(step, scalars["loss"]) for _, step, scalars in recorder.records] == [(1, 1.0), (2, 5.0)]


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_the_step_that_is_not_finite_is_named(spoilt, what):
    log = step_log(Recorder())
    bad = report(spoilt) if what == "loss" else report(1.0, gradient_norm=spoilt)
    for reports in (report(1.0, 2.0), bad, report(3.0)):
        log.add(reports)
    log.close_interval(8)
    with pytest.raises(NotFiniteError, match=f"{what} (is )?{spoilt}") as raised:
        log.write()
    assert raised.value.step == 7


def test_the_host_waits_for_steps_that_are_far_behind(monkeypatch):
    waited = []
    monkeypatch.setattr(step_log_module.jax, "block_until_ready", waited.append)
    log, reports = step_log(Recorder()), [report(float(i)) for i in range(20)]
    for dispatched in reports:
        log.add(dispatched)
    ahead = step_log_module._MOST_AHEAD
    assert [id(r) for r in waited] == [id(r) for r in reports[: 20 - ahead]]
    assert ahead < 32  # where XLA's CPU client locks up
