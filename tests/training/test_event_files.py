import struct
import time

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event

from hvq_jax.training.writers.tensorboard import EventFile


def events(path):
    """The events of a file of TFRecords: each is an 8-byte length, 4 bytes of checksum, the event and 4 more."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_two_files_of_one_second_are_both_kept_and_read_in_their_order(tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    for step in range(1, 12):
        file = EventFile(tmp_path, purge_step=step)
        file.write(step, summary.scalar("loss", float(step)))
        file.close()
    written = [
        (event.step, value.simple_value)
        for path in sorted(tmp_path.iterdir())
        for event in events(path)
        for value in event.summary.value
    ]
    assert written == [(step, float(step)) for step in range(1, 12)]
