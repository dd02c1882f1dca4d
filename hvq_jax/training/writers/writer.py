"""The interface of writers: where the records of a run go, besides `metrics.jsonl`."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


class Writer(abc.ABC):
    """Writes the records of one run, on the first process, in the thread of the run; made when the run is opened."""

    requires: ClassVar[str | None] = None  # the module of the extra that has the writer's name

    @abc.abstractmethod
    def __init__(self, workdir: Path, *, project: str, config: Mapping[str, Any]) -> None:
        """Open the writer for the run in `workdir`; `project` and `config` are for trackers."""

    def start_stage(self, stage: str, start_step: int) -> None:  # noqa: B027
        """Prepare for the records of a stage that is trained from `start_step` on."""

    def start_over(self, stage: str) -> None:  # noqa: B027
        """Expect the steps of a stage again, with other metrics, as it is trained once more from its first step."""

    @abc.abstractmethod
    def record(self, stage: str, split: str, step: int, scalars: Mapping[str, float]) -> None:
        """Write metrics; raise OSError if the disk is full."""

    @abc.abstractmethod
    def images(self, stage: str, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Write images uint8 `[H, W, C]` by name."""

    def usage(self, stage: str, step: int, counts: np.ndarray) -> None:  # noqa: B027
        """Write the number of assignments to each code, `[K]`."""

    def end_stage(self, stage: str) -> None:  # noqa: B027
        """Complete what was written of a stage."""

    def close(self, *, failed: bool) -> None:  # noqa: B027
        """Close the writer at the end of the run, or where it `failed` or was stopped."""
