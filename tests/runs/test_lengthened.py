"""A run that goes on with other options: more steps, another learning rate, and a prior of the newer autoencoder."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import train
from hvq_jax.errors import UserError
from hvq_jax.evaluation import plots
from hvq_jax.files import read_arrays
from hvq_jax.runs.history import earlier_options, from_the_start, read_history, with_changes
from hvq_jax.runs.options import RECORDED
from hvq_jax.runs.outdated import set_outdated_aside
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.learning_rates import SCHEDULES, Rates
from hvq_jax.training.options import FitOptions
from tests.workdirs import EVERY_STEP, digests, error_of, records

LONGER = ("--config.autoencoder.num_steps=10", "--config.autoencoder.learning_rate=0.001")


def copied(trained_run, folder):
    return shutil.copytree(trained_run, folder)


@pytest.fixture(scope="module")
def lengthened(trained_run, tmp_path_factory):
    """A finished run of both stages, 6 and 4 steps, that went on to 10 and 5; and what it printed."""
    workdir = copied(trained_run, tmp_path_factory.mktemp("lengthened") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_write", lambda figure, path: path.touch())
        said = []
        patch.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        assert train.main([f"--workdir={workdir}", *LONGER, "--config.prior.num_steps=5"]) == 0
    return workdir, "\n".join(said)


def test_it_goes_on_from_its_last_step_and_says_what_changes(lengthened, trained_run):
    workdir, said = lengthened
    assert digests(workdir, "autoencoder")[0] == 10
    assert "change: autoencoder.learning_rate is 0.001 from step 6 on, 0.006 before" in said
    assert "autoencoder: from step 6 on the learning rate goes from 0.0015 to 0.001 within 2 steps, then " in said
    assert "then cosine up to step 10" in said
    kept = [record for record in records(trained_run) if record["stage"] == "autoencoder"]
    assert [record for record in records(workdir) if record["stage"] == "autoencoder"][: len(kept)] == kept


def test_its_history_says_the_step_the_option_and_both_values(lengthened):
    workdir, _ = lengthened
    changes = json.loads((workdir / "history.json").read_text())["changes"]
    assert {"step": 6, "option": "autoencoder.num_steps", "from": 6, "to": 10} in changes
    assert {"step": 6, "option": "autoencoder.learning_rate", "from": 0.006, "to": 0.001} in changes
    # The prior was trained again, with its options of now from the start.
    assert {"step": 0, "option": "prior.num_steps", "from": 4, "to": 5} in changes


def test_the_prior_is_trained_again_on_the_latents_of_the_newer_autoencoder(lengthened, trained_run):
    workdir, said = lengthened
    summary = json.loads((workdir / "summary.json").read_text())
    step = summary["autoencoder"]["step"]
    assert step > 6  # a few steps more are better
    assert summary["prior"]["autoencoder_step"] == summary["samples"]["autoencoder_step"] == step
    for name in ("latents.npz", "tables.npz"):
        assert int(np.load(workdir / name)["checkpoint_step"]) == step
    assert digests(workdir, "prior")[0] == 5
    assert [record["step"] for record in records(workdir) if record["stage"] == "prior"][-1] == 5
    assert f"the best autoencoder is now that of step {step}: latents are encoded again" in said
    aside = workdir / "checkpoints" / "prior-of-autoencoder-6"
    kept = {path.name for path in aside.iterdir()}
    assert kept == {path.name for path in (trained_run / "checkpoints" / "prior").iterdir()}
    assert next(TrainedRun.load(workdir).sample(np.zeros(2, np.int32))).images.shape == (2, 28, 28, 1)


def test_interrupted_it_ends_bit_identical(lengthened, trained_run, tmp_path, monkeypatch):
    """The change is in the run's folder: to resume needs no options."""
    workdir, save = copied(trained_run, tmp_path / "run"), Checkpoints.save

    def save_then_crash(self, step, *rest):
        save(self, step, *rest)
        if step == 8:  # behind the warm-up
            self.wait()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_then_crash)
        assert train.main([f"--workdir={workdir}", *LONGER, EVERY_STEP]) == 130
    assert train.main([f"--workdir={workdir}", "--config.stage=autoencoder"]) == 0
    assert digests(workdir, "autoencoder") == digests(lengthened[0], "autoencoder")


@pytest.mark.usefixtures("without_plots")
def test_a_longer_prior_keeps_its_latents(trained_run, tmp_path, capsys):
    workdir = copied(trained_run, tmp_path / "run")
    before = {name: read_arrays(workdir / name) for name in ("latents.npz", "tables.npz")}
    assert train.main([f"--workdir={workdir}", "--config.stage=prior", "--config.prior.num_steps=6"]) == 0
    assert "prior resumes from the checkpoint of step 4" in capsys.readouterr().out
    assert digests(workdir, "prior")[0] == 6
    for name, arrays in before.items():
        np.testing.assert_equal(read_arrays(workdir / name), arrays)
    assert not list((workdir / "checkpoints").glob("prior-*"))


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("latent.dim=4", "latent.dim (8 there, 4 now), which cannot change in a run that exists; use its values, or"),
        ("autoencoder.batch_size=32", "another --workdir with --config.init_from="),
        ("autoencoder.clip_norm=1.0", "--config.autoencoder.clip_norm (0.0 there, 1.0 now), which cannot change"),
        (
            "autoencoder.num_steps=5",
            "--config.autoencoder.num_steps=5: the run has taken 6 steps, more than these 5: choose as many or",
        ),
    ],
)
def test_what_cannot_change_is_one_line_and_changes_nothing(trained_run, tmp_path, argument, says, capsys):
    copy = copied(trained_run, tmp_path / "run")  # which no other test holds the lock of
    before = (copy / "config.json").read_text()
    assert says in error_of([f"--workdir={copy}", f"--config.{argument}"], capsys)
    assert (copy / "config.json").read_text() == before
    assert not (copy / "history.json").exists()


@pytest.mark.parametrize("left", [("latents.npz", "tables.npz"), ("latents.npz",), ("tables.npz",)])
def test_a_prior_is_set_aside_whatever_a_crash_has_left(tmp_path, left):
    for name in left:
        np.savez(tmp_path / name, checkpoint_step=np.array(6))
    (tmp_path / "checkpoints" / "prior-of-autoencoder-6").mkdir(parents=True)  # of another time
    (tmp_path / "checkpoints" / "prior" / "4").mkdir(parents=True)
    set_outdated_aside(tmp_path, 6)
    assert (tmp_path / "checkpoints" / "prior").exists()
    set_outdated_aside(tmp_path, 10)
    assert not [name for name in left if (tmp_path / name).exists()]
    assert (tmp_path / "checkpoints" / "prior-of-autoencoder-6-2" / "4").is_dir()
    assert not (tmp_path / "checkpoints" / "prior").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"option": "latent.dim"}, "latent.dim is no option whose changes are kept"),
        ({"from": -1.0}, "must be at least 0"),
        ({"step": "6"}, "changes.0.step must be an integer"),
    ],
)
def test_a_history_that_is_damaged_is_refused(tmp_path, change, says):
    whole = {"step": 6, "option": "autoencoder.learning_rate", "from": 0.003, "to": 0.001}
    (tmp_path / "history.json").write_text(json.dumps({"changes": [{**whole, **change}]}))
    with pytest.raises(UserError, match=f"history.json cannot be .*{says}"):
        read_history(tmp_path)


def test_every_recorded_option_is_of_a_stage():
    assert {key.partition(".")[0] for key in RECORDED} == {"autoencoder", "prior"}
    assert {"num_epochs", "learning_rate", "schedule"} <= {key.partition(".")[2] for key in RECORDED}


OLD = {key: 1 for key in RECORDED}
STEPS = {"autoencoder": 750}


def test_changes_at_the_same_step_are_one_and_a_change_back_is_none():
    once = with_changes([], OLD, {**OLD, "autoencoder.num_epochs": 2}, STEPS)
    now = {**OLD, "autoencoder.num_epochs": 2}
    (again,) = with_changes(once, now, {**OLD, "autoencoder.num_epochs": 3}, STEPS)
    assert again == {"step": 750, "option": "autoencoder.num_epochs", "from": 1, "to": 3}
    assert with_changes(once, now, OLD, STEPS) == []
    assert with_changes([], OLD, {**OLD, "prior.num_epochs": 2}, STEPS) == []  # it has taken no step


def test_a_change_that_a_crash_kept_out_of_the_config_never_was():
    history = with_changes([], OLD, {**OLD, "autoencoder.num_epochs": 2}, STEPS)
    assert with_changes(history, OLD, OLD, STEPS) == []
    assert with_changes(history, {**OLD, "autoencoder.num_epochs": 2}, {**OLD, "autoencoder.num_epochs": 2}, STEPS)


def test_the_options_of_before_follow_from_those_of_now():
    options, history = FitOptions(num_epochs=9, learning_rate=0.001), []
    changes = ((10, "num_epochs", 5, 7), (20, "learning_rate", 0.003, 0.001), (20, "num_epochs", 7, 9))
    for step, name, old, new in changes:
        history.append({"step": step, "option": f"autoencoder.{name}", "from": old, "to": new})
    found = [(until, o.num_epochs, o.learning_rate) for until, o in earlier_options(history, "autoencoder", options)]
    assert found == [(10, 5, 0.003), (20, 7, 0.003)]
    assert earlier_options(history, "prior", options) == []
    assert earlier_options(from_the_start(history, "autoencoder"), "autoencoder", options) == []


@settings(max_examples=25)
@given(
    steps=st.tuples(st.integers(2, 60), st.integers(1, 60)),
    rates=st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 1)),
    schedules=st.tuples(st.sampled_from(sorted(SCHEDULES)), st.sampled_from(sorted(SCHEDULES))),
    warmup_steps=st.integers(0, 40),
)
def test_a_rate_that_goes_on_never_jumps(steps, rates, schedules, warmup_steps):
    """Nothing before the change is different, and from there it moves by no more than a share of the warm-up."""
    before = Rates(rates[0], steps[0], schedules[0], warmup_steps=5).by_step()
    total = sum(steps)
    found = Rates(rates[1], total, schedules[1], warmup_steps).going_on_from(before, steps[0])
    taken = np.array([float(found(step)) for step in range(total + 1)])
    np.testing.assert_array_equal(taken[: steps[0]], [float(before(step)) for step in range(steps[0])])
    warmup = min(warmup_steps, steps[1] // 2)
    start, ramp = float(before(steps[0])), taken[steps[0] : steps[0] + warmup]
    if warmup:
        np.testing.assert_allclose(np.diff([start, *ramp]), (rates[1] - start) / warmup, atol=1e-5)
    assert taken[steps[0] + warmup] == pytest.approx(rates[1], rel=1e-5)
    if schedules[1] == "cosine":
        assert taken[total] == pytest.approx(0, abs=1e-7)
