"""Our training step as `train.py` runs it: under pmap, one step per dispatch, donated state, batch on the device."""

from typing import Any

import jax

from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.parallel import Parallel
from hvq_jax.training.options import FitOptions
from hvq_jax.training.programs import Taken, compiled_initial_state, compiled_steps
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import StepReport


class TrainingStep:
    """The training step of a stage with its state and one batch; each call trains on that batch again."""

    def __init__(self, stage: Stage, options: FitOptions, batch: Batch):
        parallel = Parallel("pmap")
        self.state = parallel.replicate(compiled_initial_state(stage, options, seed=0)())
        self._function: Any = compiled_steps(stage, options, seed=0, parallel=parallel)
        self._batch = parallel.shard_steps([Taken.by(batch, options.learning_rate)])

    def __call__(self) -> StepReport:
        """Run one step and wait for its result."""
        self.state, report = self._function(self.state, self._batch)
        return jax.block_until_ready(report)

    def compile(self) -> Any:
        """Compile before the first call, and return the compiled step."""
        self._function = self._function.lower(self.state, self._batch).compile()
        return self._function
