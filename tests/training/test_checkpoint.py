import contextlib
import io
import itertools
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings, strategies as st

from hvq_jax.errors import UserError
from hvq_jax.training.checkpoint import Checkpoints
from tests.stops import SIGNALS, count_calls, is_stopped
from tests.training.saved_states import LIKE, files_of, saved, state_of, step_of


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def opened(folder, **options):
    return Checkpoints(folder, objective="mse", **options)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_restored_is_what_was_saved(folder):
    checkpoints = opened(folder)
    checkpoints.save(1, jax.tree.map(jnp.asarray, state_of(1)))
    checkpoints.wait()
    assert step_of(checkpoints.restore_latest(LIKE)) == 1
    checkpoints.close()


def test_the_newest_and_the_best_are_kept(folder):
    checkpoints = saved(folder, [0.5, 0.1, None, 0.4, 0.6])
    assert checkpoints.steps() == [2, 4, 5]
    assert step_of(checkpoints.restore_latest(LIKE)) == 5
    assert step_of(checkpoints.restore_best(LIKE)) == 2
    checkpoints.close()


def test_an_empty_folder_has_nothing_to_restore(folder):
    checkpoints = opened(folder)
    assert checkpoints.restore_latest(LIKE) is None
    with pytest.raises(UserError, match="train this stage first"):
        checkpoints.restore_best(LIKE)
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
@pytest.mark.parametrize("has_sums", [True, False])  # without them, the digests and the formats decide
def test_a_damaged_step_is_moved_aside_and_the_one_before_it_serves(folder, damage, has_sums, capsys):
    saved(folder, [0.3, 0.2, 0.1]).close()
    if not has_sums:
        (folder / "3" / "SHA256SUMS").unlink()
    damage(folder / "3")
    checkpoints = opened(folder)
    assert step_of(checkpoints.restore_latest(LIKE)) == 2
    assert step_of(checkpoints.restore_best(LIKE)) == 2
    assert (folder / "bad-3").is_dir()
    assert str(folder / "3") in capsys.readouterr().out
    checkpoints.save(3, state_of(3), {"mse": 0.05})
    checkpoints.wait()
    assert step_of(checkpoints.restore_best(LIKE)) == 3
    checkpoints.close()


@pytest.mark.parametrize("damaged_here", [True, False])
def test_what_only_some_processes_find_damaged_is_not_moved(folder, monkeypatch, damaged_here):
    saved(folder, [0.3, 0.2]).close()
    if damaged_here:
        flip_a_byte(folder / "2")
    checkpoints = opened(folder)
    monkeypatch.setattr("hvq_jax.training.checkpoint.true_on_all", lambda condition: False)  # another one disagrees
    with pytest.raises(UserError, match="but not on all processes"):
        checkpoints.restore_latest(LIKE)
    assert names_in(folder) == ["1", "2"]


def test_where_nothing_is_usable_the_run_stops_and_nothing_is_deleted(folder):
    saved(folder, [0.3, 0.2]).close()
    for step in ("1", "2"):
        flip_a_byte(folder / step)
    checkpoints = opened(folder)
    with pytest.raises(UserError, match="none of the checkpoints"):
        checkpoints.restore_latest(LIKE)
    assert (folder / "bad-1").is_dir()
    assert (folder / "bad-2").is_dir()
    checkpoints.close()


@pytest.mark.parametrize(
    "like",
    [
        {**LIKE, "params": {"kernel": np.zeros((4, 301), np.float32), "none": None}},
        {**LIKE, "step": np.float32(0)},
        {**LIKE, "extra": np.zeros(2, np.float32)},
    ],
    ids=["shape", "dtype", "leaf"],
)
def test_a_foreign_checkpoint_is_refused(folder, like):
    saved(folder, [0.3]).close()
    checkpoints = opened(folder)
    with pytest.raises(UserError, match="another model"):
        checkpoints.restore_latest(like)
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_a_reader_leaves_a_damaged_folder_as_it_is(folder):
    saved(folder, [0.3, 0.2]).close()
    flip_a_byte(folder / "2")
    before = sorted(p.name for p in folder.iterdir())
    reader = opened(folder, read_only=True)
    with pytest.raises(UserError, match="not usable"):
        reader.restore_best(LIKE)
    reader.close()
    assert sorted(p.name for p in folder.iterdir()) == before


DAMAGES = {
    "truncated": lambda content, place: content[:place],
    "flipped": lambda content, place: content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :],
    "emptied": lambda content, place: b"",
    "removed": None,
}


@given(st.data())
@settings(max_examples=40)
def test_whatever_is_damaged_each_state_is_exact_or_set_aside(three_steps, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged") / "checkpoints"
    shutil.copytree(three_steps, folder)
    for _ in range(data.draw(st.integers(1, 2), "damages")):
        path = data.draw(st.sampled_from(sorted(p for p in folder.glob("[23]/**/*") if p.is_file())), "file")
        change, content = DAMAGES[data.draw(st.sampled_from(sorted(DAMAGES)), "kind")], path.read_bytes()
        if change is None:
            path.unlink()
        elif content:
            path.write_bytes(change(content, data.draw(st.integers(0, len(content) - 1), "place")))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        checkpoints = opened(folder, keep=3)
        latest, best = step_of(checkpoints.restore_latest(LIKE)), step_of(checkpoints.restore_best(LIKE))
        checkpoints.close()
    steps, bad = [{int(path.name[-1]) for path in folder.glob(names)} for names in ("[0-9]", "bad-?")]
    assert steps | bad == {1, 2, 3}
    assert steps.isdisjoint(bad)
    assert latest == max(steps)
    ranked = [
        step for step in (2, 3, 1) if step in steps and f"{folder / str(step)}: its metrics" not in said.getvalue()
    ]
    assert best == ranked[0]
    shutil.rmtree(folder)


@pytest.mark.parametrize("restore", ["restore_latest", "restore_best"])
def test_a_stop_at_any_moment_of_reading_is_no_damage(three_steps, restore):
    def read():
        checkpoints = opened(three_steps, keep=3)
        getattr(checkpoints, restore)(LIKE)
        checkpoints.close()

    before = files_of(three_steps)
    calls = count_calls(read)
    for number, call in enumerate(np.linspace(1, 0.9 * calls, 100, dtype=int)):  # not always quite as many
        assert is_stopped(read, call, SIGNALS[number % 2]), call
    assert files_of(three_steps) == before
    checkpoints = opened(three_steps, keep=3)
    assert step_of(checkpoints.restore_latest(LIKE)) == 3
    assert step_of(checkpoints.restore_best(LIKE)) == 2
    checkpoints.close()


def test_a_stop_at_any_moment_of_writing_leaves_whole_steps(three_steps, folder):
    shutil.copytree(three_steps, folder)

    def write():
        checkpoints = opened(folder)
        try:
            checkpoints.save(checkpoints.steps()[-1] + 1, state_of(checkpoints.steps()[-1] + 1), {"mse": 0.5})
        finally:
            checkpoints.close()

    calls = count_calls(write)
    for number, call in enumerate(np.linspace(1, calls, 25, dtype=int)):
        is_stopped(write, call, SIGNALS[number % 2])
        checkpoints = opened(folder)
        assert step_of(checkpoints.restore_latest(LIKE)) == checkpoints.steps()[-1] >= 3
        checkpoints.close()
        assert not list(folder.glob("bad-*"))
    checkpoints = opened(folder)
    assert step_of(checkpoints.restore_best(LIKE)) == 2
    checkpoints.close()


METRICS_DAMAGES = {
    "truncated": lambda path: path.write_text('{"mse'),
    "flipped": lambda path: path.write_text(path.read_text().replace("1", "0")),
    "emptied": lambda path: path.write_text(""),
    "removed": lambda path: path.unlink(),
    "removed with their folder": lambda path: shutil.rmtree(path.parent),
    "without the objective": lambda path: path.write_text('{"mae": 0.1}'),
    "not finite": lambda path: path.write_text('{"mse": NaN}'),
    "not a number": lambda path: path.write_text('{"mse": "small"}'),
    "not an object": lambda path: path.write_text("[0.1]"),
}


@pytest.mark.parametrize("damage", METRICS_DAMAGES)
def test_damaged_metrics_are_taken_from_their_copy(three_steps, folder, damage, capsys):
    shutil.copytree(three_steps, folder)
    METRICS_DAMAGES[damage](folder / "2" / "metrics" / "metrics")
    for read_only in (True, False):
        checkpoints = opened(folder, read_only=read_only)
        assert step_of(checkpoints.restore_best(LIKE)) == 2
        checkpoints.close()
    assert not capsys.readouterr().out


def damage_copy(folder):
    (folder / "_CHECKPOINT_METADATA").write_text("{")


def lose_sums(folder):
    (folder / "SHA256SUMS").unlink()


# Without sums, nothing shows that a digit was flipped, or that there ever were metrics.
SHOWN_WITHOUT_SUMS = [damage for damage in METRICS_DAMAGES if damage not in ("flipped", "removed with their folder")]


@pytest.mark.parametrize(
    ("lose_copy", "damage"),
    [*((damage_copy, damage) for damage in METRICS_DAMAGES), *((lose_sums, damage) for damage in SHOWN_WITHOUT_SUMS)],
)
def test_lost_metrics_leave_the_state_and_cannot_be_the_best(three_steps, folder, damage, lose_copy, capsys):
    shutil.copytree(three_steps, folder)
    METRICS_DAMAGES[damage](folder / "2" / "metrics" / "metrics")
    lose_copy(folder / "2")
    for read_only in (True, False):
        checkpoints = opened(folder, keep=1, read_only=read_only)
        assert capsys.readouterr().out.count(f"checkpoint {folder / '2'}: its metrics are damaged") == 1
        assert checkpoints.best_step() == step_of(checkpoints.restore_best(LIKE)) == 3
    checkpoints.save(4, state_of(4), {"mse": 0.5})
    checkpoints.close()
    assert names_in(folder) == ["2", "3", "4"]  # 2 may have been the best
    for step in ("3", "4"):
        shutil.rmtree(folder / step)
    checkpoints = opened(folder)
    assert step_of(checkpoints.restore_latest(LIKE)) == 2
    checkpoints.close()


def test_a_best_step_that_is_lost_is_named_until_it_is_taken_again(three_steps, folder):
    shutil.copytree(three_steps, folder)
    checkpoints = opened(folder)
    assert checkpoints.lost_best_step() is None
    flip_a_byte(folder / "2")
    assert step_of(checkpoints.restore_best(LIKE)) == 3
    assert checkpoints.lost_best_step() == 2
    checkpoints.close()
    assert opened(folder, read_only=True).lost_best_step() == 2
    checkpoints = opened(folder)
    checkpoints.save(4, state_of(4), {"mse": 0.05})
    checkpoints.close()
    assert checkpoints.lost_best_step() is None


def test_of_a_finished_training_the_best_step_is_known_by_its_files(folder):
    checkpoints = saved(folder, [0.3, 0.1, 0.2])
    assert checkpoints.best_of_finished(3) == 2
    assert checkpoints.best_of_finished(4) is None
    flip_a_byte(folder / "3")
    assert checkpoints.best_of_finished(3) is None
    assert sorted(checkpoints.steps()) == [2, 3]  # what to do about it is left to reading


def test_a_damaged_step_that_was_not_the_best_is_no_loss(three_steps, folder):
    shutil.copytree(three_steps, folder)
    flip_a_byte(folder / "3")
    checkpoints = opened(folder)
    assert step_of(checkpoints.restore_latest(LIKE)) == 2
    assert checkpoints.lost_best_step() is None
    checkpoints.close()


def test_a_reader_takes_the_next_step_where_its_own_is_deleted(folder, monkeypatch):
    writer = saved(folder, [0.5], keep=1)
    reader = opened(folder, read_only=True)
    restore = ocp.StandardCheckpointHandler.restore

    def restore_late(*arguments, **options):
        step = writer.steps()[-1]
        if step < 4:
            writer.save(step + 1, state_of(step + 1), {"mse": 0.5 - step / 10})
            writer.wait()
        return restore(*arguments, **options)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", restore_late)
    assert step_of(reader.restore_best(LIKE)) == 4
    writer.close()
    assert names_in(folder) == ["4"]


def test_states_are_whole_while_another_thread_saves_and_deletes(folder):
    saved(folder, [1.0], keep=1).close()
    done, failures = threading.Event(), []

    def train():
        try:
            writer = opened(folder, keep=1)
            for step in itertools.count(2):
                writer.save(step, state_of(step), {"mse": 1 / step})
                if done.is_set():
                    return writer.close()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        found = [step_of(opened(folder, read_only=True).restore_best(LIKE)) for _ in range(40)]
    finally:
        done.set()
        thread.join()
    assert not failures
    assert found == sorted(found)
    assert found[-1] > 1


def test_what_killed_processes_left_is_removed(folder):
    saved(folder, [0.2]).close()
    for name in ("2.orbax-checkpoint-tmp", "deleted-0"):
        shutil.copytree(folder / "1", folder / name)
    assert opened(folder, read_only=True).steps() == [1]
    assert len(names_in(folder)) == 3
    assert opened(folder).steps() == [1]
    assert names_in(folder) == ["1"]


def test_a_reader_says_that_it_passes_over_an_incomplete_step(tmp_path, capsys):
    saved(tmp_path, [0.3, 0.2, 0.1]).close()
    (tmp_path / "3" / "_CHECKPOINT_METADATA").unlink()
    before = files_of(tmp_path)
    reader = Checkpoints(tmp_path, objective="mse", read_only=True)
    assert step_of(reader.restore_best(LIKE)) == 2
    assert f"checkpoint {tmp_path / '3'} is incomplete and passed over" in capsys.readouterr().out
    assert files_of(tmp_path) == before
