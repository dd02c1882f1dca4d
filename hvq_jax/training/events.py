"""TensorBoard event files, written synchronously, so that the caller and not a background thread sees a full disk."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Make `import module` raise ImportError during the block, unless the module has already been imported."""
    modules: dict[str, Any] = sys.modules
    if module in modules:
        yield
        return
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]


with _without("torch"):  # if installed, tensorboardX takes seconds to import it for features that are not used here
    from tensorboardX import summary as summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary


class EventFile:
    """A new event file in `folder`, which hides the events of older files there from `purge_step` on."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._write(purge_step, file_version="brain.Event:2")
        self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, *summaries: Any) -> None:
        """Append the values made by `tensorboardX.summary` as one event; raise OSError if the disk is full."""
        values = [value for summary in summaries for value in summary.value]
        self._write(step, summary=Summary(value=values))
        self._writer.flush()

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self._writer.close()
