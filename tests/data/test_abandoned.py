"""Readers that are left in the middle: their threads end, and the garbage collector waits for none of them."""

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from hvq_jax.data.builders.decode_files import decode_files
from hvq_jax.data.builders.image_folder import ImageFolder
from hvq_jax.data.builders.records import RecordWriter
from hvq_jax.data.prepare import prepare
from hvq_jax.errors import UserError

ROOT = Path(__file__).parents[2]
# Where it hangs it ends with the stacks of all threads. Garbage is collected now and then, and rarely. Where finalisers
# wait for threads, this fails within 60 turns.
STRESS = """
import faulthandler, gc, sys
from pathlib import Path
from hvq_jax.data.builders.decode_files import decode_files

faulthandler.dump_traceback_later(300, exit=True)
files = sorted(Path(sys.argv[1]).iterdir())
for turn in range(300):
    gc.set_threshold((5, 300)[turn % 2] + turn % 97)
    abandoned = decode_files(files, sides=(8, 8), channels=3, num_threads=2)
    next(abandoned)
    cycle = [abandoned]
    cycle.append(cycle)
    del abandoned, cycle
    list(decode_files(files[:3], sides=(8, 8), channels=3, num_threads=2))
"""


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(100):
        Image.new("RGB", (9, 9)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def no_thread_is_left():
    """Compare the threads before and after; give those that were asked to end some time."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 60
    while (left := set(threading.enumerate()) - before) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left


def test_decoders_that_are_abandoned_while_others_start_hold_up_nobody(files):
    command = [sys.executable, "-c", STRESS, str(files[0].parent)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_garbage_collector_waits_for_no_thread(files, monkeypatch, no_thread_is_left):
    joined = []
    images = decode_files(files, sides=(8, 8), channels=3, num_threads=2)
    next(images)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", lambda thread, timeout=None: joined.append(thread))
        del images
        gc.collect()
    assert not joined


def test_a_data_set_that_cannot_be_written_leaves_no_thread(tmp_path, files, monkeypatch, no_thread_is_left):
    closed, folder = [], files[0].parent

    def decode(*arguments, **options):
        try:
            yield from decode_files(*arguments, **options)
        finally:
            closed.append(threading.current_thread())

    def full(self, path, examples):
        next(iter(examples))
        raise OSError("No space left on device")

    monkeypatch.setattr("hvq_jax.data.builders.collection.decode_files", decode)
    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(UserError, match="No space left") as caught:  # holds the frames, and what they refer to
        prepare(ImageFolder, data_dir=tmp_path / "out", manual_dir=folder, image_size=8)
    assert closed == [threading.current_thread()]
    assert caught.tb
