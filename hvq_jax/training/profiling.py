"""Profiling: a trace of a few training steps for TensorBoard or Perfetto, requested with `train.py --profile=N`."""

from pathlib import Path
from typing import Any

import jax

from hvq_jax.devices.cluster import is_first
from hvq_jax.layout import PROFILE

_WARM_UP_STEPS = 10  # after each start: compilation and filling the pipeline are not representative


class StepProfiler:
    """A profiler that traces steps into `workdir`/profile/`stage`, only on the first process of a cluster."""

    def __init__(self, workdir: Path, stage: str, num_steps: int, *, start_step: int, last_step: int) -> None:
        self.folder = workdir / PROFILE / stage
        self._num_steps = num_steps if is_first() else 0
        self._step = start_step
        self._last_step = last_step
        self._from = start_step + _WARM_UP_STEPS
        self._running = False

    def before(self, state: Any) -> None:
        """Start the trace when it is due; call this before steps are dispatched from `state`."""
        if self._num_steps and not self._running and self._step >= self._from:
            jax.block_until_ready(state)  # earlier steps may still be running
            self._from = self._step
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # calls of Python functions would hide everything else
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True, profiler_options=options)
            self._running = True

    def after(self, step: int, state: Any) -> str | None:
        """Stop the trace when it is complete, and return a line that names its location; call this after every step.

        Args:
            step: index of the last step.
            state: the state after that step.
        """
        self._step = step
        if not self._running or step < min(self._from + self._num_steps, self._last_step):
            return None
        jax.block_until_ready(state)
        return self._stop(f"steps {self._from + 1} to {step}")

    def close(self) -> str | None:
        """Stop a trace cut short by an error or SIGTERM; return a line if there is no trace or an incomplete one."""
        if self._running:
            return self._stop(f"steps {self._from + 1} to {self._step}")
        if self._num_steps:
            return f"profile: none, because training ended within the first {_WARM_UP_STEPS} steps after the start"
        return None

    def _stop(self, what: str) -> str:
        self._num_steps, self._running = 0, False
        jax.profiler.stop_trace()
        return f"profile of {what}: {self.folder} (for TensorBoard; open its .json.gz in https://ui.perfetto.dev)"
