"""The lock of a workdir: one run at a time, and no trace of a start that was refused."""

import contextlib
import fcntl
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hvq_jax.errors import UserError
from hvq_jax.runs.workdir import locked, read_description, write_description


def test_a_refused_start_leaves_no_trace(tmp_path):
    with pytest.raises(UserError, match="refused"), locked(tmp_path / "new"):
        raise UserError("refused")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="refused"), locked(tmp_path / "mine"):
        raise UserError("refused")
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_named(tmp_path, make):
    make(tmp_path / ".lock")
    with pytest.raises(UserError, match=r"--workdir=.*: not writable"), locked(tmp_path):
        pass


def test_what_was_written_stays(tmp_path):
    with locked(tmp_path / "run") as folder:
        (folder / "config.json").write_text("{}")
    assert (tmp_path / "run" / "config.json").exists()


def test_a_second_run_is_refused_and_leaves_the_first_its_lock(tmp_path):
    with locked(tmp_path / "run"):
        with pytest.raises(UserError, match="in use by another run"), locked(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / ".lock").exists()


def _most_holders(folder, lock, holders, rounds):
    """Return how many hold the folder at once at most, by taking and leaving it in turns with other threads."""
    most = 0
    for _ in range(rounds):
        with contextlib.suppress(UserError), locked(folder):
            with lock:
                holders.append(folder)
                most = max(most, len(holders))
            os.sched_yield()
            with lock:
                holders.pop()
    return most


def test_no_two_runs_ever_hold_a_folder_that_comes_and_goes(tmp_path):
    """Threads hold locks as processes do, each by a file of its own, and take turns within calls of the system."""
    lock, holders = threading.Lock(), []
    with ThreadPoolExecutor(3) as pool:
        counts = [pool.submit(_most_holders, tmp_path / "run", lock, holders, 3000) for _ in range(3)]
    assert max(count.result(timeout=120) for count in counts) == 1


def test_a_lock_that_was_removed_meanwhile_is_not_taken(tmp_path, monkeypatch):
    lock = fcntl.flock

    def remove_first(file, operation):
        os.unlink(tmp_path / "run" / ".lock")
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with pytest.raises(UserError, match="in use"), locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize("change", [{"image_shape": [65536, 65536, 4]}, {"class_names": ["b", "a"]}, {"digest": None}])
def test_a_description_that_has_changed_is_refused(tmp_path, change):
    write_description(tmp_path, {"name": "x", "image_shape": [8, 8, 1], "class_names": ["a", "b"], "fingerprint": "y"})
    assert read_description(tmp_path)["image_shape"] == [8, 8, 1]
    file = tmp_path / "dataset.json"
    content = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(UserError, match=r"dataset.json cannot be .*(it is not as it was written|it has no digest)"):
        read_description(tmp_path)
