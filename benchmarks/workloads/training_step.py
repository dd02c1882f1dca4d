"""Our training step as `train.py` runs it: under pmap, one step per dispatch, donated state, batch on the device."""

from functools import partial
from typing import Any

import jax

from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.parallel import Parallel
from hvq_jax.training.options import FitOptions
from hvq_jax.training.programs import initial_state
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import StepReport, train_step

_NUM_STEPS = 1000  # length of the schedule; a step takes the same time anywhere in it


class TrainingStep:
    """The training step of a stage with its state and one batch; each call trains on that batch again."""

    def __init__(self, stage: Stage, options: FitOptions, batch: Batch):
        parallel = Parallel("pmap")
        step = partial(
            train_step,
            loss_function=stage.loss,
            optimizer=options.make_optimizer(_NUM_STEPS),
            seed=0,
            average_decay=options.average_decay,
            axis_name=parallel.axis_name,
        )
        self.state = parallel.replicate(jax.jit(partial(initial_state, stage, options, 0))())
        self._function: Any = parallel.compile(step, donate_state=True)
        self._batch = parallel.shard(batch)

    def __call__(self) -> StepReport:
        """Run one step and wait for its result."""
        self.state, report = self._function(self.state, self._batch)
        return jax.block_until_ready(report)

    def compile(self) -> Any:
        """Compile before the first call, and return the compiled step."""
        self._function = self._function.lower(self.state, self._batch).compile()
        return self._function
