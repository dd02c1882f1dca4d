"""TensorBoard event files, written synchronously, so that the caller and not a background thread sees a full disk."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvq_jax.layout import EVENTS
from hvq_jax.training.writers.writer import Writer


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
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary


class EventFile:
    """A new event file in `folder`, which hides the events of older files there from `purge_step` on."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, which begin with the second: those of one are numbered.
        number = len(list(folder.glob("events.out.tfevents.*")))
        self._writer = EventsWriter(str(folder / "events"), f".{number:06d}.{os.getpid()}")
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


class TensorBoard(Writer):
    """Events in `events/STAGE` of the workdir; a resumed stage hides those that it will write again."""

    def __init__(self, workdir: Path, *, project: str, config: Mapping[str, Any]) -> None:
        del project, config
        self._folder = workdir / EVENTS
        self._events: dict[str, EventFile] = {}

    def start_stage(self, stage: str, start_step: int) -> None:
        """Open an event file."""
        self._events[stage] = EventFile(self._folder / stage, purge_step=start_step + 1)

    def record(self, stage: str, split: str, step: int, scalars: Mapping[str, float]) -> None:
        """Write a point per curve."""
        points = (summary.scalar(f"{split}/{name}", value) for name, value in scalars.items())
        self._events[stage].write(step, *points)

    def images(self, stage: str, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Write images uint8 `[H, W, C]`."""
        grids = (summary.image(name, image, dataformats="HWC") for name, image in images.items())
        self._events[stage].write(step, *grids)

    def usage(self, stage: str, step: int, counts: np.ndarray) -> None:
        """Write a histogram over codes: code k in the bucket (k − 1, k]."""
        codes = np.arange(len(counts))
        histogram = summary.histogram_raw(
            "code_usage",
            min=0.0,
            max=float(len(counts) - 1),
            num=int(counts.sum()),
            sum=float(counts @ codes),
            sum_squares=float(counts @ codes**2),
            bucket_limits=codes.tolist(),
            bucket_counts=counts.tolist(),
        )
        self._events[stage].write(step, histogram)

    def end_stage(self, stage: str) -> None:
        """Close the event file."""
        with contextlib.suppress(OSError):  # a full disk has already been reported by the write
            self._events.pop(stage).close()
