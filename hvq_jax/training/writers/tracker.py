"""What all trackers of experiments have in common: one run per workdir, to which nothing is written twice.

A tracker keeps what it was given, so a run that was stopped and goes on from an earlier step must not write the steps
in between again: as they are the same, they are left out. `trackers.json` in the workdir says which run of the tracker
it is and what has been written to it. In another folder, such as a copy, another run is started. What the tracker
lacks of `metrics.jsonl` is written when it is opened, so that a tracker may be added to a run later.
"""

import abc
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from hvq_jax.errors import UserError
from hvq_jax.files import MADE_AGAIN, read_json, write_json
from hvq_jax.layout import TRACKERS
from hvq_jax.progress import print_warning
from hvq_jax.schema import Count
from hvq_jax.training.writers.writer import Writer


class TrackerRun(TypedDict):
    """The run of one tracker, in `trackers.json`."""

    folder: str  # the workdir
    run: str  # the run's identifier
    rows: Count  # written so far
    last: dict[str, Count]  # the last step written of "autoencoder/train", …
    trainings: dict[str, Count]  # of a stage that was trained more than once: how often


class Tracker(Writer):
    """A writer to a run of a tracker; `name` is that in the registry.

    Training goes on without a tracker that fails.
    """

    name: str

    def __init__(self, workdir: Path, *, project: str, config: Mapping[str, Any]) -> None:
        """Start the run, or resume it; raise UserError if that fails."""
        self._file = workdir / TRACKERS
        known = self._known().get(self.name)
        if known is None or known["folder"] != str(workdir):
            known = TrackerRun(folder=str(workdir), run=secrets.token_hex(4), rows=0, last={}, trainings={})
        self._known_run = known
        self._lost = False
        try:
            self._open(workdir, project=project, config=config)
        except Exception as error:
            raise UserError(f"logging.writers={self.name}: cannot be started ({_first_line(error)})") from error

    def _known(self) -> dict[str, TrackerRun]:
        return read_json(self._file, dict[str, TrackerRun], advice=MADE_AGAIN) or {}

    @property
    def run_id(self) -> str:
        """The identifier of the run, eight hexadecimal digits."""
        return self._known_run["run"]

    @abc.abstractmethod
    def _open(self, workdir: Path, *, project: str, config: Mapping[str, Any]) -> None:
        """Start the run named by the workdir and `run_id`, or resume it."""

    @abc.abstractmethod
    def _write(self, stage: str, step: int, row: int, values: Mapping[str, float | np.ndarray]) -> None:
        """Write values, images uint8 `[H, W, C]` among them, by names that start with the stage."""

    @abc.abstractmethod
    def _close(self, *, failed: bool) -> None:
        """Wait until everything has been written, and end the run of this process."""

    def record(self, stage: str, split: str, step: int, scalars: Mapping[str, float]) -> None:
        """Write the metrics, unless they have been written."""
        self._write_once(stage, split, step, scalars)

    def images(self, stage: str, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Write the images, unless they have been written."""
        self._write_once(stage, "images", step, images)

    def start_over(self, stage: str) -> None:
        """Name the stage's metrics "prior-2/…" from now on, beside those of its first training."""
        self._known_run["trainings"][stage] = self._known_run["trainings"].get(stage, 1) + 1
        self._remember()

    def _write_once(self, stage: str, kind: str, step: int, values: Mapping[str, Any]) -> None:
        known = self._known_run
        if stage in known["trainings"]:
            stage = f"{stage}-{known['trainings'][stage]}"
        key = f"{stage}/{kind}"
        if self._lost or step <= known["last"].get(key, -1):
            return
        try:
            self._write(stage, step, known["rows"], {f"{key}/{name}": value for name, value in values.items()})
        except Exception as error:
            self._lose(error)
            return
        known["rows"] += 1
        known["last"][key] = step
        self._remember()

    def _remember(self) -> None:
        write_json(self._file, {**self._known(), self.name: self._known_run})

    def _lose(self, error: Exception) -> None:
        self._lost = True
        print_warning(
            f"warning: {self.name} failed ({_first_line(error)}): this run goes on without it; what it lacks is "
            "written when the run is started again"
        )

    def close(self, *, failed: bool) -> None:
        """End the run of this process."""
        try:
            self._close(failed=failed)
        except Exception as error:
            self._lose(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__
