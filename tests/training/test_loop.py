"""The loop on a model of one number, whose loss can be spoilt at will."""

import dataclasses
import inspect
import json
import shutil
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.data.datasets import Split
from hvq_jax.data.pipeline import eval_batches
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import ArgumentError, Preempted, UserError
from hvq_jax.metrics import Mean
from hvq_jax.training import programs, saved_step
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.learning_rates import Rates
from hvq_jax.training.logging import RunLog, read_records
from hvq_jax.training.loop import RunContext, checkpoint_folder, fit, lost_best_step, num_training_steps
from hvq_jax.training.options import FitOptions
from hvq_jax.training.programs import evaluator
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import adam, create_state
from tests.training.saved_states import damage

TRAIN = Split(np.arange(32, dtype=np.uint8).reshape(32, 1, 1, 1), np.zeros(32, np.int32))
VALIDATION = Split(np.arange(11, dtype=np.uint8).reshape(11, 1, 1, 1), np.zeros(11, np.int32))


@dataclasses.dataclass(frozen=True)
class ToyStage(Stage):
    """A model of one number; the model state counts the steps."""

    name: ClassVar[str] = "toy"
    objective: ClassVar[str] = "error"
    items: ClassVar[str] = "images"

    spoil_training_at: int = 10**6
    spoil_validation_from: int = 10**6
    sign: float = 1.0  # of the error, as it is reported

    def init(self, key):
        return jnp.zeros(()), jnp.zeros((), jnp.int32)

    def loss(self, params, state, batch, key, axis_name, num_parts=1):
        error = jnp.mean(jnp.square(batch.items / 32.0 - params))
        return jnp.where(state + 1 == self.spoil_training_at, jnp.nan, error), (state + 1, error)

    def evaluate(self, params, state, batch):
        values = batch.items.astype(jnp.float32).mean((1, 2, 3))
        value = jnp.where(state >= self.spoil_validation_from, jnp.nan, values)
        return Mean.of(jnp.broadcast_to(value - 0.1 * state, batch.mask.shape), batch.mask)

    def summarise_steps(self, metrics):
        return {"error": float(metrics.mean())}

    def summarise(self, sums):
        return {"error": self.sign * float(sums.value)}


def fit_toy(stage, workdir, **options):
    defaults = {
        "batch_size": 8,
        "num_epochs": 2,
        "num_steps": 0,
        "learning_rate": 0.01,
        "schedule": "constant",
        "warmup_steps": 0,
        "clip_norm": 0.0,
        "average_decay": 0.0,
        "log_every_steps": 3,
        "eval_every_steps": 2,
        "checkpoint_every_steps": 1,
        "keep_checkpoints": 2,
        "check_replicas_every_steps": 4,
        "steps_per_dispatch": 1,
    }
    workdir.mkdir(exist_ok=True)
    fit_options = FitOptions(**{**defaults, **options})
    run = RunContext(workdir, seed=0, parallel=Parallel("pmap"), preemption=Preemption())
    return fit(stage, TRAIN, VALIDATION, options=fit_options, run=run)


def test_steps_evaluations_and_records(tmp_path):
    best = fit_toy(ToyStage(), tmp_path / "run")
    assert best.step == 8  # the error falls with every step, so the last is the best
    records = read_records(tmp_path / "run")
    assert [r["step"] for r in records if r["split"] == "validation"] == [2, 4, 6, 8]
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 9))
    # Eleven images in batches of eight over four devices: none dropped, none twice.
    first = next(r for r in records if r["split"] == "validation")
    assert first["error"] == pytest.approx(np.arange(11).mean() - 0.2, rel=1e-6)


def test_the_best_is_chosen_on_validation(tmp_path):
    assert fit_toy(ToyStage(sign=-1.0), tmp_path / "run").step == 2  # the error rises: the first is the best


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_best_state_is_handed_on_without_being_read_again(tmp_path, monkeypatch, sign):
    stage = ToyStage(sign=sign)
    reads = []
    read = saved_step.read_state
    monkeypatch.setattr(saved_step, "read_state", lambda *given: reads.append(given) or read(*given))
    handed_on = fit_toy(stage, tmp_path / "run")
    assert not reads
    from_disk = fit_toy(stage, tmp_path / "run")  # finished: nothing is trained, so the best has to be read
    assert reads
    chex.assert_trees_all_equal(handed_on, from_disk)


@dataclasses.dataclass(frozen=True)
class DriftingStage(ToyStage):
    """A stage without its reduction from some step on: the devices count differently."""

    drifts_from: int = 1

    def loss(self, params, state, batch, key, axis_name, num_parts=1):
        error, (count, metrics) = super().loss(params, state, batch, key, axis_name)
        return error, (count + (count >= self.drifts_from) * 100 * jax.lax.axis_index(axis_name), metrics)


def test_replicas_that_differ_stop_a_run_that_is_shorter_than_the_interval(tmp_path):
    options = {"check_replicas_every_steps": 500}
    first, later = DriftingStage(), DriftingStage(drifts_from=7)
    with pytest.raises(UserError, match="at step 1 the state on devices 1, 2, 3 is not that"):
        fit_toy(first, tmp_path / "first", **options)
    with pytest.raises(UserError, match="at step 8 the state on devices 1, 2, 3 is not that"):
        fit_toy(later, tmp_path / "last", **options)
    # Resumed after step 7, which was saved unseen: its copies are equal again, but the next step's are not.
    with pytest.raises(UserError, match="at step 8"):
        fit_toy(later, tmp_path / "last", **options)
    assert fit_toy(first, tmp_path / "never", check_replicas_every_steps=0).step > 0


def test_the_next_best_takes_the_place_of_a_damaged_one_not_in_silence(tmp_path, capsys):
    stage = ToyStage(sign=-1.0)
    fit_toy(stage, tmp_path / "run")
    folder = checkpoint_folder(stage, tmp_path / "run")
    damage(folder / "2")
    for _ in range(2):  # as often as the run is started
        assert fit_toy(stage, tmp_path / "run").step == 8
        assert "toy warning: the best checkpoint, that of step 2, is damaged" in capsys.readouterr().out
        assert lost_best_step(stage, tmp_path / "run") == 2
    shutil.rmtree(folder / "bad-2")
    fit_toy(stage, tmp_path / "run")
    assert "warning" not in capsys.readouterr().out
    assert lost_best_step(stage, tmp_path / "run") is None


def kept(stage, workdir):
    checkpoints = Checkpoints(checkpoint_folder(stage, workdir), objective=stage.objective)
    like = create_state(jnp.zeros(()), jnp.int32(0), adam(Rates(0.1, 1).by_step()), average_decay=0)
    try:
        return checkpoints.steps(), checkpoints.restore_best(like)
    finally:
        checkpoints.close()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_good(tmp_path):
    stage = ToyStage(spoil_training_at=5)
    with pytest.raises(UserError, match=r"toy: the loss is nan .* at step 5; the last checkpoint .* of step 4;"):
        fit_toy(stage, tmp_path / "run")
    steps, best = kept(stage, tmp_path / "run")
    assert max(steps) == 4
    assert best.step == 4
    assert np.isfinite(best.params)


def test_the_step_is_named_even_within_a_stretch_between_logs(tmp_path):
    stage = ToyStage(spoil_training_at=5)
    with pytest.raises(UserError, match="at step 5"):
        fit_toy(stage, tmp_path / "run", eval_every_steps=8, checkpoint_every_steps=0, log_every_steps=8)


def test_the_step_is_named_even_within_a_dispatch(tmp_path):
    options = {"eval_every_steps": 8, "checkpoint_every_steps": 0, "log_every_steps": 8, "steps_per_dispatch": 4}
    with pytest.raises(UserError, match="at step 6"):
        fit_toy(ToyStage(spoil_training_at=6), tmp_path / "run", **{**options, "check_replicas_every_steps": 0})


def test_a_validation_that_is_not_finite_leaves_the_best_alone(tmp_path):
    stage = ToyStage(spoil_validation_from=6)
    with pytest.raises(UserError, match="validation error is nan at step 6"):
        fit_toy(stage, tmp_path / "run")
    steps, best = kept(stage, tmp_path / "run")
    assert best.step == 4
    assert max(steps) == 5


def test_sums_are_exact_over_ragged_batches_and_devices():
    stage = ToyStage()
    parallel = Parallel("pmap")
    optimizer = adam(Rates(0.1, 1).by_step())
    state = parallel.replicate(create_state(jnp.zeros(()), jnp.int32(0), optimizer, average_decay=0.0))
    sums = evaluator(stage, parallel)(state, split=VALIDATION, batch_size=4)
    assert sums.count == 11
    assert sums.total == np.arange(11).sum()
    assert jax.tree.leaves(sums)[0].dtype == np.float64


def test_all_splits_are_evaluated_by_one_program():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Counted(ToyStage):
        traced: list = dataclasses.field(default_factory=list)

        def evaluate(self, params, state, batch):
            self.traced.append(batch)
            return super().evaluate(params, state, batch)

    stage, parallel = Counted(), Parallel("pmap")
    optimizer = adam(Rates(0.1, 1).by_step())
    state = parallel.replicate(create_state(jnp.zeros(()), jnp.int32(0), optimizer, average_decay=0.0))
    for _ in ("validation", "test"):
        evaluator(stage, parallel)(state, split=VALIDATION, batch_size=4)
    assert len(stage.traced) == 1


def test_an_evaluation_that_is_stopped_closes_its_reader(monkeypatch):
    opened = []

    def remembered(*arguments, **options):
        opened.append(eval_batches(*arguments, **options))
        return opened[-1]

    def stopped(batches):
        yield next(iter(batches))
        raise Preempted

    monkeypatch.setattr(programs, "eval_batches", remembered)
    parallel, optimizer = Parallel("pmap"), adam(Rates(0.1, 1).by_step())
    state = parallel.replicate(create_state(jnp.zeros(()), jnp.int32(0), optimizer, average_decay=0.0))
    with pytest.raises(Preempted):
        evaluator(ToyStage(), parallel)(state, split=VALIDATION, batch_size=4, watch=stopped)
    assert [inspect.getgeneratorstate(batches) for batches in opened] == [inspect.GEN_CLOSED]


def test_a_resumed_log_drops_what_will_be_written_again(tmp_path):
    log = RunLog(tmp_path, "toy", start_step=0, num_steps=9)
    for step in (1, 2, 3):
        log.record("train", step, {"loss": float(step)})
    log.usage(1, np.array([3, 0, 5]))
    log.images(1, {"grid": np.zeros((8, 8, 1), np.uint8)})
    log.close()
    other = RunLog(tmp_path, "other", start_step=0, num_steps=9)
    other.record("train", 7, {"loss": 0.0})
    other.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "toy", "split": "tr')  # cut off by a crash
    RunLog(tmp_path, "toy", start_step=2, num_steps=9).close()
    assert {(r["stage"], r["step"]) for r in read_records(tmp_path)} == {("toy", 1), ("toy", 2), ("other", 7)}


def test_a_resumed_log_says_once_which_lines_are_no_records(tmp_path, capsys):
    good = [{"stage": "toy", "split": "train", "step": step, "loss": 1.0} for step in (1, 2)]
    bad = [b"5", b"null", b"{}", b"\xff", b'{"stage": "toy", "split": "train", "step": "3", "loss": 1.0}']
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([json.dumps(good[0]).encode(), *bad, json.dumps(good[1]).encode(), b'{"st']))
    RunLog(tmp_path, "toy", start_step=2, num_steps=9).close()
    said = f"{path}: left out 5 lines that are no records, the first is line 2 (it must be an object, not 5)\n"
    assert capsys.readouterr().out == said
    assert read_records(tmp_path) == good
    assert capsys.readouterr().out == ""


def test_more_steps_than_a_counter_of_32_bits_holds_are_refused():
    with pytest.raises(ArgumentError, match=r"^num_epochs=2147483647: 4294967294 steps: must be at most 2147483647$"):
        num_training_steps(FitOptions(batch_size=2, num_epochs=2**31 - 1), range(4))
