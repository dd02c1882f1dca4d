"""Logs of a run: `metrics.jsonl`, the writers, the callbacks, and lines for the terminal."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import absl.logging
import numpy as np

from hvq_jax.errors import Preempted, UserError
from hvq_jax.files import open_regular, parse_json, write_text
from hvq_jax.layout import METRICS
from hvq_jax.progress import is_quiet, named, print_line, print_warning, progress_bar
from hvq_jax.schema import Count, check_json
from hvq_jax.training.callbacks import Callbacks
from hvq_jax.training.writers import Writer


def set_quiet() -> None:
    """Silence the loggers of libraries for the whole program, so that the terminal shows only our own lines."""
    absl.logging.set_verbosity(absl.logging.FATAL)  # Orbax and TFDS log pages about errors that they also raise
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # and so does the writer of a checkpoint that failed
    if getattr(sys.unraisablehook, "func", None) is not _report_unless_expected:
        sys.unraisablehook = partial(_report_unless_expected, sys.unraisablehook)


def _report_unless_expected(report: Callable[[Any], Any], unraisable: Any) -> None:
    # Where one array of a checkpoint cannot be read, Orbax closes the event loop to which the others are then reported.
    # A stop in a destructor is noticed by `Preemption.requested`.
    error = unraisable.exc_value
    if not isinstance(error, (Preempted, KeyboardInterrupt)) and str(error) != "Event loop is closed":
        report(unraisable)


class Record(TypedDict):
    """A line of `metrics.jsonl`: where it belongs; besides, the metrics by name, all of them numbers."""

    stage: str
    split: str
    step: Count


def read_records(workdir: Path) -> list[dict[str, Any]]:
    """Return the records of a run, oldest first.

    Lines that are no records are left out, which is said in one line; not of a last line that a crash left incomplete.

    Raises:
        UserError: the file cannot be read.
    """
    path = workdir / METRICS
    try:
        with open_regular(path) as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    records, problems = [], []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_parse_record(line))
        except ValueError as error:
            if number < len(lines):  # behind the last newline there is nothing, or what a crash left
                problems.append(f"{number} ({error})")
    if problems:
        print_warning(f"{path}: left out {len(problems)} lines that are no records, the first is line {problems[0]}")
    return records


def drop_records(workdir: Path, stage: str, *, after_step: int) -> None:
    """Remove the records of the steps of a stage after `after_step`, and all lines that are no records."""
    kept = [record for record in read_records(workdir) if record["stage"] != stage or record["step"] <= after_step]
    write_text(workdir / METRICS, "".join(json.dumps(record) + "\n" for record in kept))


def _parse_record(line: bytes) -> dict[str, Any]:
    """Return the record in a line; raise ValueError, with a message of one line, if there is none."""
    record: dict[str, Any] = parse_json(line)
    check_json(record, Record)
    check_json({name: value for name, value in record.items() if name not in Record.__annotations__}, dict[str, float])
    return record


class RunLog:
    """The log of one stage from `start_step` on; drops records that a resumed run will write again."""

    def __init__(
        self,
        workdir: Path,
        stage: str,
        *,
        start_step: int,
        num_steps: int,
        writers: Sequence[Writer] = (),
        callbacks: Callbacks | None = None,
    ) -> None:
        self.stage = stage
        self._writers = writers
        self._callbacks = callbacks or Callbacks()
        drop_records(workdir, stage, after_step=start_step)
        # Unbuffered, so that a full disk is noticed here, and not again when the file is closed.
        self._file = open(workdir / METRICS, "ab", buffering=0)  # noqa: SIM115 - closed in `close`
        for writer in writers:
            writer.start_stage(stage, start_step)
        self._bar = progress_bar(
            desc=named(stage),
            total=num_steps,
            initial=start_step,
            bar_format="{desc}  {bar}  {n_fmt}/{total_fmt}{postfix}",
            dynamic_ncols=True,
        )

    def record(self, split: str, step: int, scalars: dict[str, float]) -> None:
        """Append one line to `metrics.jsonl`, write it with the writers, and tell the callbacks."""
        row = {"stage": self.stage, "split": split, "step": step, **scalars}
        try:
            self._file.write(f"{json.dumps(row)}\n".encode())
            for writer in self._writers:
                writer.record(self.stage, split, step, scalars)
        except OSError as error:
            raise UserError(
                f"cannot write {METRICS} and events in {Path(self._file.name).parent} at step {step}: "
                f"{error.strerror}; everything saved before is intact"
            ) from None
        self._callbacks.tell("on_record" if split == "train" else "on_evaluation", self.stage, step, scalars)

    def advance(self, step: int) -> None:
        """Advance the progress bar, if there is one, to `step`."""
        self._bar.update(max(step - self._bar.n, 0))

    def progress(self, step: int, line: str) -> None:
        """Advance the progress bar and show `line` beside it, or print a line if stderr is not a terminal."""
        self.advance(step)
        if self._bar.disable:
            print_line(f"{self.stage} step {step}/{self._bar.total}: {line}")
        else:
            self._bar.set_postfix_str(line)

    def say(self, line: str) -> None:
        """Print a line without breaking the progress bar, unless this thread is quiet."""
        if not is_quiet():
            self.warn(line)

    def warn(self, line: str) -> None:
        """Print a line without breaking the progress bar, even if this thread is quiet."""
        self._bar.clear()
        print_warning(f"{self.stage} {line}")
        self._bar.refresh()

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Write uint8 grids `[H, W, C]` with the writers, and tell the callbacks."""
        for writer in self._writers:
            writer.images(self.stage, step, images)
        self._callbacks.tell("on_images", self.stage, step, images)

    def usage(self, step: int, counts: np.ndarray) -> None:
        """Write the number of assignments to each code, `[K]`, with the writers.

        Several codebooks, `[depth, K]`, are concatenated.
        """
        if counts.sum() > 0:
            for writer in self._writers:
                writer.usage(self.stage, step, counts.reshape(-1))

    def close(self) -> None:
        """Flush and close everything."""
        self._bar.close()
        self._file.close()
        for writer in self._writers:
            writer.end_stage(self.stage)


class SilentLog(RunLog):
    """A log that discards everything, for processes other than the first."""

    def __init__(self) -> None: ...

    def record(self, split: str, step: int, scalars: dict[str, float]) -> None:
        """Do nothing, like all methods of this class."""

    def advance(self, step: int) -> None: ...  # noqa: D102

    def progress(self, step: int, line: str) -> None: ...  # noqa: D102

    def say(self, line: str) -> None: ...  # noqa: D102

    def warn(self, line: str) -> None: ...  # noqa: D102

    def images(self, step: int, images: dict[str, np.ndarray]) -> None: ...  # noqa: D102

    def usage(self, step: int, counts: np.ndarray) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class Warnings:
    """The warnings of one kind of check, each said when its fault is found and not again while it lasts."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._lasting: frozenset[str] = frozenset()

    def say(self, found: dict[str, str]) -> None:
        """Say the lines of the faults `found` now, by kind, that were not found the last time."""
        for kind, line in found.items():
            if kind not in self._lasting:
                self._log.warn(f"warning: {line}")
        self._lasting = frozenset(found)
