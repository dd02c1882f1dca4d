"""Progress bars whose output cannot be written."""

import errno
import sys
import threading

import tqdm

from hvq_jax.progress import progress_bar


class FullDisk:
    encoding = "utf-8"

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    flush = isatty = lambda self: self.write("")


def test_a_bar_that_cannot_be_shown_holds_up_neither_its_work_nor_other_threads(monkeypatch):
    monkeypatch.setattr(sys, "stderr", FullDisk())
    with progress_bar(total=3, mininterval=0, desc="work") as bar:
        for _ in range(3):
            bar.update()
        assert bar.n == 3
    other = threading.Thread(target=lambda: progress_bar(total=1).close(), daemon=True)
    other.start()
    other.join(timeout=60)
    assert not other.is_alive()


def test_collecting_one_waits_for_no_lock():
    """tqdm holds the lock of all bars while it starts a thread, which may collect a bar before it reports itself."""
    bars = [progress_bar(total=3)]
    with tqdm.tqdm.get_lock():
        collecting = threading.Thread(target=bars.clear, daemon=True)
        collecting.start()
        collecting.join(timeout=60)
        assert not collecting.is_alive()


def test_they_start_no_thread():
    before = threading.active_count()
    with progress_bar(total=3):
        assert threading.active_count() == before


def test_it_shows_what_is_done(capsys):
    with progress_bar(total=3, mininterval=0, desc="work") as bar:
        bar.update(3)
    assert "work: 100%" in capsys.readouterr().err
