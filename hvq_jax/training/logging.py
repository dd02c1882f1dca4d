"""What a run says: `metrics.jsonl` for programs, TensorBoard events for people, lines for the terminal."""

import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np
from tqdm import tqdm

from hvq_jax.errors import UserError
from hvq_jax.files import write_text
from hvq_jax.progress import progress_bar
from hvq_jax.training.imports import without

with without("torch"):  # where it is installed, tensorboardX takes seconds to import it, for nothing that is used here
    from tensorboardX import summary

    from hvq_jax.training.events import EventFile

METRICS = "metrics.jsonl"


def set_quiet() -> None:
    """Leaves the terminal to our own lines, for a whole program."""
    absl.logging.set_verbosity(absl.logging.FATAL)  # Orbax and TFDS log pages about errors that they also raise
    logging.getLogger("asyncio").setLevel(
        logging.CRITICAL
    )  # so do the writers of a checkpoint that could not be written


def read_records(workdir: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first; lines that a crash left unfinished are left out."""
    path = workdir / METRICS
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def in_one_line(figures: dict[str, Any]) -> str:
    """Figures for the terminal: "mse 0.0382  psnr 20.78"; nested ones behind their name."""
    parts = []
    for name, value in figures.items():
        if isinstance(value, dict):
            parts.append(f"{name}: {in_one_line(value)}")
        else:
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return "  ".join(parts)


class RunLog:
    """The log of one stage, from `start_step` on: records that a resumed run will write again are dropped."""

    def __init__(self, workdir: Path, stage: str, *, start_step: int, num_steps: int) -> None:
        self.stage = stage
        kept = [record for record in read_records(workdir) if record["stage"] != stage or record["step"] <= start_step]
        write_text(workdir / METRICS, "".join(json.dumps(record) + "\n" for record in kept))
        # Without a buffer, so that a full disk is noticed here and not again when the file is closed.
        self._file = open(workdir / METRICS, "ab", buffering=0)  # noqa: SIM115 - closed in `close`
        self._events = EventFile(workdir / "events" / stage, purge_step=start_step + 1)
        self._bar = progress_bar(
            desc=stage,
            total=num_steps,
            initial=start_step,
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def record(self, split: str, step: int, scalars: dict[str, float]) -> None:
        """Appends one line to `metrics.jsonl` and one point a curve to TensorBoard."""
        row = {"stage": self.stage, "split": split, "step": step, **scalars}
        try:
            self._file.write(f"{json.dumps(row)}\n".encode())
            self._events.write(step, *(summary.scalar(f"{split}/{name}", value) for name, value in scalars.items()))
        except OSError as error:
            raise UserError(
                f"cannot write {METRICS} and events in {Path(self._file.name).parent} at step {step}: "
                f"{error.strerror}; what was saved before is intact"
            ) from None

    def progress(self, step: int, line: str) -> None:
        """Moves the bar, or prints a line where the output is not a terminal."""
        self._bar.update(step - self._bar.n)
        if self._bar.disable:
            print(f"{self.stage} step {step}/{self._bar.total}  {line}", flush=True)
        else:
            self._bar.set_postfix_str(line)

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        tqdm.write(f"{self.stage} {line}", file=sys.stdout)
        sys.stdout.flush()

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """uint8 grids `[H, W, C]` to TensorBoard."""
        self._events.write(step, *(summary.image(name, image, dataformats="HWC") for name, image in images.items()))

    def usage(self, step: int, counts: np.ndarray) -> None:
        """The histogram of assignments over codes: `counts` `[K]`, code k in the bucket (k − 1, k].

        Of several codebooks, `[depth, K]`, one after the other.
        """
        counts = counts.reshape(-1)
        if counts.sum() == 0:
            return
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
        self._events.write(step, histogram)

    def close(self) -> None:
        """Flushes everything."""
        self._bar.close()
        self._file.close()
        with contextlib.suppress(OSError):  # a full disk has been reported by who wrote to it
            self._events.close()


class SilentLog(RunLog):
    """The log of a process that another one speaks for."""

    def __init__(self) -> None: ...

    def record(self, split: str, step: int, scalars: dict[str, float]) -> None:
        """Does nothing, like all methods here."""

    def progress(self, step: int, line: str) -> None: ...  # noqa: D102

    def say(self, line: str) -> None: ...  # noqa: D102

    def images(self, step: int, images: dict[str, np.ndarray]) -> None: ...  # noqa: D102

    def usage(self, step: int, counts: np.ndarray) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102
