"""What a terminal and a pipe show of long work, and bars whose output cannot be written."""

import errno
import io
import re
import sys
import threading

import tqdm

from hvq_jax.progress import progress_bar, quietly
from hvq_jax.training.logging import RunLog


class FullDisk:
    encoding = "utf-8"

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    flush = isatty = lambda self: self.write("")


def test_a_bar_that_cannot_be_shown_holds_up_neither_its_work_nor_other_threads(monkeypatch):
    monkeypatch.setattr(sys, "stderr", FullDisk())
    with progress_bar(total=3, mininterval=0, desc="work", disable=False) as bar:
        for _ in range(3):
            bar.update()
        assert bar.n == 3
    other = threading.Thread(target=lambda: progress_bar(total=1, disable=False).close(), daemon=True)
    other.start()
    other.join(timeout=60)
    assert not other.is_alive()


def test_collecting_one_waits_for_no_lock():
    """tqdm holds the lock of all bars while it starts a thread, which may collect a bar before it reports itself."""
    bars = [progress_bar(total=3, disable=False)]
    with tqdm.tqdm.get_lock():
        collecting = threading.Thread(target=bars.clear, daemon=True)
        collecting.start()
        collecting.join(timeout=60)
        assert not collecting.is_alive()


def test_they_start_no_thread():
    before = threading.active_count()
    with progress_bar(total=3, disable=False):
        assert threading.active_count() == before


def open_terminal(monkeypatch):
    """Return what takes the place of standard output and error, as one terminal."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def log_of_two_intervals(workdir):
    log = RunLog(workdir, "toy", start_step=0, num_steps=20)
    log.advance(3)
    log.progress(10, "loss 0.5")
    log.say("validation at step 10: error 0.2")
    log.warn("warning: all codes are one")
    log.progress(20, "loss 0.25")
    log.close()


def test_on_a_terminal_lines_stand_above_the_bar(tmp_path, monkeypatch):
    terminal = open_terminal(monkeypatch)
    log_of_two_intervals(tmp_path)
    *lines, end = terminal.getvalue().split("\n")
    assert not end
    # Where the cursor goes back to the start of a line, it is overwritten.
    final = [line.rpartition("\r")[2] for line in lines]
    assert final[:2] == ["toy validation at step 10: error 0.2", "toy warning: all codes are one"]
    assert re.fullmatch(r"toy  #+  20/20, loss 0.25", final[2])
    assert len(final) == 3
    for line in lines[:2]:  # the bar was wiped out before
        assert re.search(r"\r *\rtoy [vw]", line)


def test_elsewhere_every_interval_is_a_line_and_no_line_goes_back_to_its_start(tmp_path, capsys):
    log_of_two_intervals(tmp_path)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "toy step 10/20: loss 0.5",
        "toy validation at step 10: error 0.2",
        "toy warning: all codes are one",
        "toy step 20/20: loss 0.25",
    ]
    assert "\r" not in out
    assert not err


def test_a_quiet_run_prints_warnings_only(tmp_path, monkeypatch):
    terminal = open_terminal(monkeypatch)
    with quietly(False), quietly(), quietly(False):
        log_of_two_intervals(tmp_path)
        with progress_bar(total=3, mininterval=0) as bar:
            bar.update(3)
    assert terminal.getvalue() == "toy warning: all codes are one\n"
    log_of_two_intervals(tmp_path)
    assert "validation" in terminal.getvalue()


def test_a_bar_is_drawn_on_a_terminal_and_announced_elsewhere(monkeypatch, capsys):
    for _ in range(2):
        with progress_bar(total=3, mininterval=0, desc="work", announced=True) as bar:
            bar.update(3)
        progress_bar(total=3, desc="silent").close()
    assert capsys.readouterr().err == "work\nwork\n"
    terminal = open_terminal(monkeypatch)
    with progress_bar(total=3, mininterval=0, desc="work", announced=True) as bar:
        bar.update(3)
    assert terminal.getvalue().startswith("\rwork: ")
    assert "work: 100%" in terminal.getvalue()
