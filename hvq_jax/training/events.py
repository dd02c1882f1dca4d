"""TensorBoard event files, written on the spot: a full disk is noticed by who writes, not by a thread of its own."""

import os
import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class EventFile:
    """A new event file in `folder`; what earlier ones there say of `purge_step` and later steps is hidden."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._write(purge_step, file_version="brain.Event:2")
        self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, *summaries: Any) -> None:
        """Appends what `tensorboardX.summary` makes, as one event; OSError where the disk is full."""
        values = [value for summary in summaries for value in summary.value]
        self._write(step, summary=Summary(value=values))
        self._writer.flush()

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
