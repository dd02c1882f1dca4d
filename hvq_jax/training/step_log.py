"""Reports of training steps, summarised per interval while the devices are running later steps."""

import collections
import time
from typing import Any

import jax
import numpy as np

from hvq_jax.progress import duration
from hvq_jax.training.logging import RunLog, Warnings
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import StepReport

# Dispatches by which the host may lead the devices. XLA's CPU client locks up at 32 of them: a device that is late
# gets no slot for its part of a reduction in which the other devices wait (jaxlib 0.10.2).
_MOST_AHEAD = 16

_UNSETTLED_STEPS = 100  # of which the stage gives no warnings


class NotFiniteError(Exception):
    """Raised when a loss or gradient norm is infinite or NaN; the message states both, and `step` is the step."""

    def __init__(self, loss: float, gradient_norm: float, step: int) -> None:
        super().__init__(f"the loss is {loss} and the gradient norm {gradient_norm}")
        self.step = step


class StepLog:
    """A collector of step reports that writes their means to `log`.

    Reading a report waits for its step. So an interval is closed after its last step but written only once the next
    step has been dispatched: the devices never wait for the host to summarise.
    """

    def __init__(
        self,
        log: RunLog,
        stage: Stage,
        *,
        start_step: int,
        num_steps: int,
        batch_size: int,
    ) -> None:
        """Log steps of `stage`, which summarises them."""
        self._log, self._stage = log, stage
        self._num_steps, self._batch_size = num_steps, batch_size
        self._open: list[StepReport] = []
        self._closed: tuple[int, list[StepReport]] | None = None
        self._written = start_step
        self._clock: float | None = None  # from when the training speed is measured; None before the first dispatch
        self._first: tuple[int, float] | None = None  # when the first interval was written: its last step, and the time
        self._done = start_step  # steps that are known to be complete
        self._waiting: collections.deque[StepReport] = collections.deque()  # reports of steps that may not be
        self._warnings = Warnings(log)

    def add(self, reports: StepReport) -> None:
        """Add the reports of one dispatch, still on the devices; wait if the host is too far ahead of these.

        Each leaf has a leading axis of steps. The training speed is measured from the first dispatch, which compiles.
        """
        if self._clock is None:
            self.restart_clock()
        self._open.append(reports)
        self._waiting.append(reports)
        if len(self._open) > _MOST_AHEAD:
            jax.block_until_ready(self._open[-1 - _MOST_AHEAD])
        self._advance()

    def _advance(self) -> None:
        """Show how many steps are complete."""
        while self._waiting and self._waiting[0].loss.is_ready():  # type: ignore[attr-defined]  # of concrete arrays
            self._done += len(self._waiting.popleft().loss)
        self._log.advance(self._done)

    def close_interval(self, step: int) -> None:
        """Close the interval of the reports added since the last one; it will be logged at `step`."""
        self.write()
        self._closed, self._open = (step, self._open), []

    def write(self) -> None:
        """Wait for the steps of the closed interval, if there is one, and log them; may raise NotFiniteError."""
        if self._closed is None or self._clock is None:
            return
        (step, reports), self._closed = self._closed, None
        for report in reports:
            jax.block_until_ready(report)
            self._advance()
        stacked = jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(reports))
        now = time.monotonic()
        _require_finite(stacked, step)
        rate = (step - self._written) * self._batch_size / (now - self._clock)
        self._written, self._clock = step, now
        scalars = {
            "loss": float(stacked.loss.mean()),
            "gradient_norm": float(stacked.gradient_norm.mean()),
            **self._stage.summarise_steps(stacked.metrics),
            f"{self._stage.items}_per_second": rate,
        }
        self._log.record("train", step, scalars)
        self._warn(step, stacked.metrics)
        left = duration(self._seconds_left(step, now, self._batch_size / rate))
        self._log.progress(step, f"loss {scalars['loss']:.4f}, {rate:.0f} {self._stage.items}/s, {left} left")

    def _seconds_left(self, step: int, now: float, of_a_step: float) -> float:
        """Return the time that the remaining steps will take, evaluations and checkpoints included once there are any.

        They are counted from the end of the first interval, because compilation is before it.
        """
        self._first = self._first or (step, now)
        first, then = self._first
        return (self._num_steps - step) * ((now - then) / (step - first) if step > first else of_a_step)

    def _warn(self, last_step: int, metrics: Any) -> None:
        """Say what the stage warns of in the steps up to the last, except the first ones of the run."""
        count = len(jax.tree.leaves(metrics)[0])
        settled = min(last_step - _UNSETTLED_STEPS, count)
        if settled > 0:
            self._warnings.say(self._stage.step_warnings(jax.tree.map(lambda leaf: leaf[-settled:], metrics)))

    def restart_clock(self) -> None:
        """Restart the clock, to exclude the time since the last step, such as a checkpoint, from the training speed."""
        self._clock = time.monotonic()


def _require_finite(reports: StepReport, last_step: int) -> None:
    finite = np.isfinite(reports.loss) & np.isfinite(reports.gradient_norm)
    if not finite.all():
        bad = int(np.argmin(finite))
        loss, norm = float(reports.loss[bad]), float(reports.gradient_norm[bad])
        raise NotFiniteError(loss, norm, last_step - len(finite) + 1 + bad)
