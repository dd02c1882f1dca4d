"""What a run would take: the time and the memory of the compiled training steps, without training.

Each stage's step is compiled as for training. Its memory is that which XLA has planned for the program. Its time is
measured: the program runs a few times on noise, from a fresh state, and what it computes is thrown away. A training
step takes the same time whatever the images and the parameters are.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hvq_jax.data.datasets import AnySplit
from hvq_jax.data.given import Given
from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.cluster import say, true_on_all
from hvq_jax.devices.preemption import Preemption
from hvq_jax.devices.programs import program_bytes
from hvq_jax.files import as_typed
from hvq_jax.progress import duration, num_bytes_in_words
from hvq_jax.runs.open import open_run
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.run import Run
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.loop import make_schedule, num_training_steps
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import Taken, compiled_initial_state, compiled_steps

_SECONDS = 2.0  # of measuring a stage, at most, unless a single dispatch takes longer
_MOST_DISPATCHES = 20


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """What the training of a stage would take."""

    stage: str
    steps_left: int
    seconds_per_step: float  # measured
    num_bytes: int | None  # of the compiled step on a device; None where the backend does not say

    def __str__(self) -> str:
        """Return the plan as a line."""
        memory = "unknown" if self.num_bytes is None else num_bytes_in_words(self.num_bytes)
        return (
            f"{self.stage:14}{self.steps_left:,} steps of about {duration(self.seconds_per_step)}: "
            f"{duration(self.steps_left * self.seconds_per_step)}; memory {memory} per device"
        )


def plan_experiment(
    config: Mapping[str, Any] | RunOptions, workdir: str, *, data: Given | None = None
) -> list[StagePlan]:
    """Say what `run_experiment` would train with these arguments; train nothing, and write nothing to `workdir`.

    The data set is opened as for training, and so prepared in its own folder where it has not been before.

    Returns:
        The plan of each stage that has steps left.

    Raises:
        UserError: as `run_experiment`.
    """
    with open_run(config, workdir, Preemption(), data=data, writes=False) as run:
        plans = []
        for name in run.options.stages:
            stage = run.blank_stage(name)
            if not run.steps_left(stage):
                say(f"{name:14}trained to its last step")
                continue
            plans.append(plan_stage(run, stage))
            say(str(plans[-1]))
        seconds = sum(plan.steps_left * plan.seconds_per_step for plan in plans)
        say(f"{'in all':14}{duration(seconds)}, and compilation, evaluations and checkpoints besides")
        say(
            "Steps were timed on noise, on this device as it is now; nothing was trained, and nothing written to "
            f"{as_typed(run.workdir)}."
        )
    return plans


def plan_stage(run: Run, stage: AutoencoderStage | PriorStage) -> StagePlan:
    """Return what the training of `stage` would take, from its compiled step."""
    options, parallel = getattr(run.options, stage.name), run.context.parallel
    num_steps = num_training_steps(options, run.train_split)
    dispatch: Any = compiled_steps(stage, options, run.options.seed, parallel)
    state = parallel.replicate(compiled_initial_state(stage, options, run.options.seed)())
    taken = Taken.by(_noise(stage, options.batch_size // jax.process_count()), options.learning_rate)
    left = run.steps_left(stage)
    size = steps_per_dispatch(options, run.train_split, taken=num_steps - left)
    group = parallel.shard_steps([taken] * size)
    compiled = dispatch.lower(state, group).compile()
    seconds = _seconds_per_dispatch(compiled, state, group)
    return StagePlan(stage.name, left, seconds / size, program_bytes(compiled))


def steps_per_dispatch(options: FitOptions, train: AnySplit, *, taken: int) -> int:
    """Return the steps of the longest dispatch after the steps `taken`: 1 where an event always comes before more."""
    schedule = make_schedule(options, train)
    most = schedule.steps_per_dispatch
    return most if most in schedule.dispatches(taken) else 1


def _noise(stage: AutoencoderStage | PriorStage, count: int) -> Batch:
    """Return a batch of `count` items of random zeros and ones, which every stage takes, the same every time."""
    items = np.random.default_rng(0).integers(0, 2, (count, *stage.item.shape), stage.item.dtype)
    return Batch(items, np.zeros(count, np.int32), np.ones(count, bool))


def _seconds_per_dispatch(compiled: Any, state: Any, group: Any) -> float:
    """Return the median time of a dispatch, after a first one that is not counted."""
    state, reports = compiled(state, group)
    jax.block_until_ready(reports)
    times: list[float] = []
    while True:
        start = time.monotonic()
        state, reports = compiled(state, group)
        jax.block_until_ready(reports)
        times.append(time.monotonic() - start)
        # Together: a process that went on alone would wait for the others in the next dispatch.
        if true_on_all(sum(times) > _SECONDS or len(times) == _MOST_DISPATCHES):
            return float(np.median(times))
