import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.command import exit_status
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import Preempted, UserError
from hvq_jax.training.checkpoint import Checkpoints


def state_of(value):
    return {
        "params": {"kernel": jnp.full((4, 300), float(value)), "none": None},
        "step": jnp.int32(value),
        "tuple": (jnp.arange(3.0),),
    }


def value_of(state):
    return int(state["step"])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def saved(folder, metrics, keep=2):
    checkpoints = Checkpoints(folder, objective="mse", keep=keep)
    for step, value in enumerate(metrics, start=1):
        checkpoints.save(step, state_of(step), None if value is None else {"mse": value})
    checkpoints.wait()
    return checkpoints


def test_what_is_restored_is_what_was_saved(folder):
    checkpoints = saved(folder, [0.5])
    restored = checkpoints.restore_latest(state_of(0))
    np.testing.assert_array_equal(restored["params"]["kernel"], np.ones((4, 300)))
    assert restored["params"]["none"] is None
    assert restored["step"].dtype == np.int32
    checkpoints.close()


def test_the_newest_and_the_best_are_kept(folder):
    checkpoints = saved(folder, [0.5, 0.1, None, 0.4, 0.6])
    assert checkpoints.steps() == [2, 4, 5]
    assert value_of(checkpoints.restore_latest(state_of(0))) == 5
    assert value_of(checkpoints.restore_best(state_of(0))) == 2
    checkpoints.close()


def test_an_empty_folder_has_nothing_to_restore(folder):
    checkpoints = Checkpoints(folder, objective="mse")
    assert checkpoints.restore_latest(state_of(0)) is None
    with pytest.raises(UserError, match="train this stage first"):
        checkpoints.restore_best(state_of(0))
    checkpoints.close()


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_byte(folder):
    path = largest_file(folder / "state")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder):
    path = largest_file(folder / "state")
    path.write_bytes(path.read_bytes()[:20])


def lose_the_commit_marker(folder):
    (folder / "_CHECKPOINT_METADATA").unlink()


def empty(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def garble_the_digests(folder):
    for path in (folder / "digests").rglob("*"):
        if path.is_file():
            path.write_text("{")


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, lose_the_commit_marker, empty, garble_the_digests])
def test_a_damaged_step_is_moved_aside_and_the_one_before_it_serves(folder, damage, capsys):
    saved(folder, [0.3, 0.2, 0.1]).close()
    damage(folder / "3")
    checkpoints = Checkpoints(folder, objective="mse")
    assert value_of(checkpoints.restore_latest(state_of(0))) == 2
    assert value_of(checkpoints.restore_best(state_of(0))) == 2
    assert (folder / "bad-3").is_dir()
    assert str(folder / "3") in capsys.readouterr().out
    checkpoints.save(3, state_of(3), {"mse": 0.05})
    checkpoints.wait()
    assert value_of(checkpoints.restore_best(state_of(0))) == 3
    checkpoints.close()


@pytest.mark.parametrize("restore", ["restore_latest", "restore_best"])
def test_a_stop_while_a_step_is_read_is_no_damage(folder, monkeypatch, restore):
    saved(folder, [0.3, 0.2]).close()
    checkpoints = Checkpoints(folder, objective="mse")
    read, uninterrupted = checkpoints._manager.restore, []

    def stopped(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        uninterrupted.append(read(*arguments, **options))  # whose event loop may wait for ever otherwise
        return uninterrupted[-1]

    monkeypatch.setattr(checkpoints._manager, "restore", stopped)
    with Preemption().noticed(), pytest.raises(Preempted):
        getattr(checkpoints, restore)(state_of(0))
    checkpoints.close()
    assert uninterrupted
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("call", ["save", "wait_until_finished", "close"])
def test_a_stop_while_a_step_is_written_is_no_failure(folder, monkeypatch, capsys, call):
    checkpoints = saved(folder, [0.3])
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))

        def work():
            with Preemption().noticed():
                checkpoints.save(2, state_of(2))
                checkpoints.close()

        assert exit_status(work) == 0
    assert capsys.readouterr().err.startswith("stopped by SIGTERM")
    checkpoints.close()


def test_where_nothing_is_usable_the_run_stops_and_nothing_is_deleted(folder):
    saved(folder, [0.3, 0.2]).close()
    for step in ("1", "2"):
        flip_a_byte(folder / step)
    checkpoints = Checkpoints(folder, objective="mse")
    with pytest.raises(UserError, match="none of the checkpoints"):
        checkpoints.restore_latest(state_of(0))
    assert (folder / "bad-1").is_dir()
    assert (folder / "bad-2").is_dir()
    checkpoints.close()


@pytest.mark.parametrize(
    "like",
    [
        {**state_of(0), "params": {"kernel": jnp.zeros((4, 301)), "none": None}},
        {**state_of(0), "step": jnp.float32(0)},
        {**state_of(0), "extra": jnp.zeros(2)},
    ],
    ids=["shape", "dtype", "leaf"],
)
def test_a_foreign_checkpoint_is_refused(folder, like):
    saved(folder, [0.3]).close()
    checkpoints = Checkpoints(folder, objective="mse")
    with pytest.raises(UserError, match="another model"):
        checkpoints.restore_latest(like)
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_a_reader_leaves_a_damaged_folder_as_it_is(folder):
    saved(folder, [0.3, 0.2]).close()
    flip_a_byte(folder / "2")
    before = sorted(p.name for p in folder.iterdir())
    reader = Checkpoints(folder, objective="mse", read_only=True)
    with pytest.raises(UserError, match="not usable"):
        reader.restore_best(state_of(0))
    reader.close()
    assert sorted(p.name for p in folder.iterdir()) == before
