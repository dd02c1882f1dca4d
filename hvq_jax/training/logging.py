"""What a run says: `metrics.jsonl` for programs, TensorBoard events for people, lines for the terminal."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorboardX
from tqdm import tqdm

from hvq_jax.training.workdir import write_text

METRICS = "metrics.jsonl"


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
        self._file = open(workdir / METRICS, "a")  # noqa: SIM115 - closed in `close`
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "events" / stage), purge_step=start_step + 1, flush_secs=10
        )
        self._bar = tqdm(
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
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def progress(self, step: int, line: str) -> None:
        """Moves the bar, or prints a line where the output is not a terminal."""
        self._bar.update(step - self._bar.n)
        if self._bar.disable:
            print(f"{self.stage} {line}", flush=True)
        else:
            self._bar.set_postfix_str(line)

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        tqdm.write(f"{self.stage} {line}", file=sys.stdout)
        sys.stdout.flush()

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """uint8 grids `[H, W, C]` to TensorBoard."""
        for name, image in images.items():
            self._events.add_image(name, image, step, dataformats="HWC")

    def usage(self, step: int, counts: np.ndarray) -> None:
        """The histogram of assignments over codes: `counts` `[K]`, code k in the bucket (k − 1, k]."""
        if counts.sum() == 0:
            return
        codes = np.arange(len(counts))
        self._events.add_histogram_raw(
            "code_usage",
            min=0.0,
            max=float(len(counts) - 1),
            num=int(counts.sum()),
            sum=float(counts @ codes),
            sum_squares=float(counts @ codes**2),
            bucket_limits=codes.tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )

    def close(self) -> None:
        """Flushes everything."""
        self._bar.close()
        self._file.close()
        self._events.close()
