"""A trace of a few training steps for TensorBoard or Perfetto, where `train.py --profile=N` asks for one."""

from pathlib import Path
from typing import Any

import jax

from hvq_jax.devices.cluster import is_first

FOLDER = "profile"
_WARM_UP_STEPS = 10  # of this start: compiling and filling the pipeline would hide what every other step does


class StepProfiler:
    """Traces steps into `workdir`/profile/`stage`, on the first process of a cluster alone."""

    def __init__(self, workdir: Path, stage: str, num_steps: int, *, start_step: int, last_step: int) -> None:
        self.folder = workdir / FOLDER / stage
        self._num_steps = num_steps if is_first() else 0
        self._step = start_step
        self._last_step = last_step
        self._from = start_step + _WARM_UP_STEPS
        self._running = False

    def before(self, state: Any) -> None:
        """To be called before steps are started from `state`."""
        if self._num_steps and not self._running and self._step >= self._from:
            jax.block_until_ready(state)  # earlier steps may still be at work
            self._from = self._step
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every call of a Python function would hide the rest
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True, profiler_options=options)
            self._running = True

    def after(self, step: int, state: Any) -> str | None:
        """To be called with the state after `step`; where the trace ends with it, a line that says where it is."""
        self._step = step
        if not self._running or step < min(self._from + self._num_steps, self._last_step):
            return None
        jax.block_until_ready(state)
        return self._stop(f"steps {self._from + 1} to {step}")

    def close(self) -> str | None:
        """Ends a trace that an error or SIGTERM has cut short; a line if there is none or not all of it."""
        if self._running:
            return self._stop(f"steps {self._from + 1} to {self._step}")
        if self._num_steps:
            return f"profile: none, since training ended within the first {_WARM_UP_STEPS} steps of this start"
        return None

    def _stop(self, what: str) -> str:
        self._num_steps, self._running = 0, False
        jax.profiler.stop_trace()
        return f"profile of {what}: {self.folder}, for TensorBoard; its .json.gz for https://ui.perfetto.dev"
