"""Where dispatches end, and that several steps in one dispatch equal separate steps."""

from functools import partial

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax.data.datasets import Split
from hvq_jax.data.pipeline import train_batches
from hvq_jax.devices.parallel import Parallel
from hvq_jax.training.dispatch import Schedule, compile_dispatch, in_groups, placed_groups
from hvq_jax.training.learning_rates import Rates
from hvq_jax.training.logging import read_records
from hvq_jax.training.loop import make_schedule
from hvq_jax.training.options import FitOptions
from hvq_jax.training.state import adam, create_state, train_step
from tests.training.small_fit import BATCH_SIZE, TRAIN, small_fit, stage_of

EVERY = st.integers(0, 12)


def schedule(num_steps, log=0, evaluate=0, save=0, check=0, most=1):
    return Schedule(num_steps, log, evaluate, save, check, most)


@given(st.integers(1, 60), st.integers(1, 12), EVERY, EVERY, EVERY, st.integers(1, 9), st.data())
def test_no_dispatch_crosses_an_event_and_a_stopped_run_is_cut_the_same(num_steps, log, ev, save, check, most, data):
    plan = schedule(num_steps, log, ev, save, check, most)
    lengths = list(plan.dispatches(0))
    ends = np.cumsum(lengths)
    events = [n for n in range(1, num_steps + 1) if plan.logs(n) or plan.checks_replicas(n, is_first=False)]
    assert set(lengths) <= {1, most}
    assert set(events) <= set(ends)
    assert ends[-1] == num_steps == events[-1]
    done = data.draw(st.integers(0, len(lengths) - 1))
    assert list(plan.dispatches(int(sum(lengths[:done])))) == lengths[done:]


def test_replicas_are_compared_after_the_first_and_the_last_step_too():
    plan = schedule(10, check=4)
    assert [n for n in range(1, 11) if plan.checks_replicas(n, is_first=n == 1)] == [1, 4, 8, 10]
    assert plan.checks_replicas(7, is_first=True)  # a resumed run
    assert not any(schedule(10, check=0).checks_replicas(n, is_first=n == 1) for n in range(1, 11))


def test_full_dispatches_come_first():
    assert list(schedule(10, log=7, most=3).dispatches(0)) == [3, 3, 1, 3]
    assert list(schedule(6).dispatches(0)) == [1] * 6
    assert list(schedule(6, most=3).dispatches(6)) == []


@pytest.mark.parametrize(("backend", "expected"), [("cpu", 1), ("gpu", 10), ("tpu", 10)])
def test_several_steps_in_a_dispatch_are_the_default_on_an_accelerator_only(backend, expected, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    one = Split(np.zeros((16, 1)), np.zeros(16, np.int32))
    assert make_schedule(FitOptions(batch_size=8), one).steps_per_dispatch == expected
    assert make_schedule(FitOptions(batch_size=8, steps_per_dispatch=4), one).steps_per_dispatch == 4


def test_batches_are_grouped_in_order_and_none_is_read_beyond_the_last():
    batches = iter(range(10))
    assert list(in_groups(batches, [3, 1, 2])) == [[0, 1, 2], [3], [4, 5]]
    assert next(batches) == 6


@pytest.mark.parametrize("form", ["pmap", "jit"])
def test_each_group_holds_the_batches_of_its_steps(form):
    parallel = Parallel(form)
    batches = [np.arange(8.0) + 100 * number for number in range(7)]
    for step, group in placed_groups(batches, schedule(7, log=7, most=3), 0, parallel):
        steps = 3 if step < 7 else 1
        group = np.asarray(group) if form == "jit" else np.moveaxis(np.asarray(group), 1, 0).reshape(steps, 8)
        np.testing.assert_array_equal(group, batches[step - steps : step])
    assert step == 7


def train(form, steps_per_dispatch, count_traces=lambda loss: loss):
    """Take seven steps of the small autoencoder; return the report of each, and the state."""
    parallel, stage, optimizer = Parallel(form), stage_of("combined"), adam(Rates(1e-3, 7).by_step())
    state = jax.jit(lambda: create_state(*stage.init(jax.random.key(0)), optimizer, average_decay=0.9))()
    options = {"loss_function": count_traces(stage.loss), "optimizer": optimizer, "seed": 0, "average_decay": 0.9}
    dispatch = compile_dispatch(partial(train_step, axis_name=parallel.axis_name, **options), parallel)
    state, reports = parallel.replicate(state), []
    batches = train_batches(TRAIN, batch_size=BATCH_SIZE, seed=0)
    for _, group in placed_groups(batches, schedule(7, most=steps_per_dispatch), 0, parallel):
        state, several = dispatch(state, group)
        reports.append(jax.device_get(several))
    batches.close()
    return jax.tree.map(lambda *x: np.concatenate(x), *reports), jax.device_get(state)


@pytest.fixture(scope="module")
def alone():
    """The reports of steps on four devices, each in a dispatch of its own, and the state after the last."""
    return train("pmap", 1)


def zero_means(path, leaf):
    return np.zeros_like(leaf) if getattr(path[-1], "key", None) == "mean" else leaf


# XLA fuses several steps otherwise than one, and float32 rounds by 6e-8 at each addition. Adam divides by the size of a
# gradient: where a gradient is nothing but rounding, as of a bias before a normalisation, it moves a parameter by up to
# the learning rate of 1e-3 per step in either direction, without an effect on anything but that normalisation's mean.
def test_several_steps_in_a_dispatch_are_the_steps_that_they_are_alone_and_each_length_is_traced_once(alone):
    chex.clear_trace_counter()
    # One of each length, and one more of the body of the loop where that is not unrolled.
    ours, state = train("pmap", 3, count_traces=lambda loss: chex.assert_max_traces(loss, n=3))
    theirs, state_alone = alone
    assert ours.loss.shape == (7,)
    chex.assert_trees_all_close(ours, theirs, rtol=2e-5, atol=2e-5)
    moved = 2 * 7 * 1e-3
    chex.assert_trees_all_close(state.params, state_alone.params, rtol=0, atol=moved)
    chex.assert_trees_all_close(state.model_state, state_alone.model_state, rtol=2e-5, atol=moved)
    without_means = [jax.tree_util.tree_map_with_path(zero_means, s.model_state) for s in (state, state_alone)]
    chex.assert_trees_all_close(*without_means, rtol=2e-5, atol=2e-5)
    assert state.step == state_alone.step == 7


def test_the_loop_of_accelerators_takes_the_same_steps(monkeypatch, alone):
    monkeypatch.setattr("hvq_jax.training.dispatch.unrolls_loops", lambda: False)
    reports, _ = train("pmap", 7)
    chex.assert_trees_all_close(reports, alone[0], rtol=2e-5, atol=2e-5)


def losses(workdir):
    return [(r["split"], r["step"], r["loss"]) for r in read_records(workdir)]


def saved(workdir, step):
    folder = next((workdir / "checkpoints").glob("*")) / str(step)
    return (folder / "digests" / "metadata").read_text()


OPTIONS = {"steps_per_dispatch": 3, "log_every_steps": 4, "eval_every_steps": 5, "checkpoint_every_steps": 2}


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The folder of a run of ten steps that was never interrupted."""
    folder = tmp_path_factory.mktemp("several")
    small_fit(folder, num_steps=10, **OPTIONS)
    return folder


def test_a_resumed_run_ends_bit_identical(several, tmp_path):
    small_fit(tmp_path, num_steps=2, **OPTIONS)  # where no dispatch of three ends
    small_fit(tmp_path, num_steps=10, **OPTIONS)
    assert saved(tmp_path, 10) == saved(several, 10)


def test_logs_and_checkpoints_fall_on_the_same_steps(several, tmp_path):
    single = tmp_path / "single"
    small_fit(single, num_steps=10, **{**OPTIONS, "steps_per_dispatch": 1})
    ours, theirs = losses(several), losses(single)
    assert [record[:2] for record in ours] == [record[:2] for record in theirs]
    assert ("train", 4) in [record[:2] for record in ours]
    np.testing.assert_allclose([record[2] for record in ours], [record[2] for record in theirs], rtol=2e-5)
    steps = [sorted(p.name for p in run.glob("checkpoints/*/[0-9]*")) for run in (several, single)]
    assert steps[0] == steps[1]
