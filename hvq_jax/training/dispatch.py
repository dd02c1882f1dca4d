"""Several training steps in one compiled computation, so that the host starts fewer of them.

What happens between steps (logs, evaluations, checkpoints, checks) is known beforehand. A dispatch ends where something
happens, so that it happens after the same steps however many steps a dispatch takes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from hvq_jax.devices.parallel import Parallel
from hvq_jax.training.state import StepReport, TrainState


@dataclasses.dataclass(frozen=True)
class Schedule:
    """After which steps, counted from 1, something happens; 0: never."""

    num_steps: int
    log_every_steps: int
    eval_every_steps: int
    checkpoint_every_steps: int
    check_replicas_every_steps: int

    def evaluates(self, step: int) -> bool:
        """Whether the validation split is evaluated after `step`; it always is after the last one."""
        return step == self.num_steps or _is_multiple(step, self.eval_every_steps)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is written after `step`; it always is after an evaluation."""
        return self.evaluates(step) or _is_multiple(step, self.checkpoint_every_steps)

    def logs(self, step: int) -> bool:
        """Whether the steps since the last log are summarised after `step`; they always are before a checkpoint."""
        return self.saves(step) or _is_multiple(step, self.log_every_steps)

    def checks_replicas(self, step: int) -> bool:
        """Whether the copies of the state are compared after `step`."""
        return _is_multiple(step, self.check_replicas_every_steps)

    def dispatches(self, start: int, most: int) -> Iterator[int]:
        """How many steps each dispatch after step `start` takes: `most`, or 1 where fewer are left until an event.

        This follows from the steps of the events alone: a run that was stopped after any dispatch is cut in the same
        way when it goes on.
        """
        while start < self.num_steps:
            events = [start + every - start % every for every in self._intervals() if every]
            event = min([self.num_steps, *events])
            whole, single = divmod(event - start, most)
            yield from itertools.chain(itertools.repeat(most, whole), itertools.repeat(1, single))
            start = event

    def _intervals(self) -> Iterator[int]:
        yield self.log_every_steps
        yield self.eval_every_steps
        yield self.checkpoint_every_steps
        yield self.check_replicas_every_steps


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def in_groups(batches: Iterable[Any], sizes: Iterable[int]) -> Iterator[list[Any]]:
    """The batches in lists of these sizes."""
    batches = iter(batches)
    for size in sizes:
        group = list(itertools.islice(batches, size))
        if len(group) < size:
            return
        yield group


def compile_dispatch(
    step: Callable[[TrainState, Any], tuple[TrainState, StepReport]], parallel: Parallel
) -> Callable[[TrainState, Any], tuple[TrainState, StepReport]]:
    """Compiles `(state, batches) -> (state, reports)`, both with a leading axis of steps (`Parallel.shard_steps`).

    A program of its own for each number of steps; the state is donated. Several steps in one program give the numbers
    of as many programs within rounding: XLA is free to fuse them in another way.
    """

    def steps(state: TrainState, batches: Any) -> tuple[TrainState, StepReport]:
        if len(jax.tree.leaves(batches)[0]) == 1:  # without a loop, the very program that one step is
            state, report = step(state, jax.tree.map(lambda x: x[0], batches))
            return state, jax.tree.map(lambda x: x[None], report)
        return jax.lax.scan(step, state, batches, unroll=_unrolls())

    return parallel.compile(steps, donate_state=True)


def _unrolls() -> bool:
    # On CPU XLA runs a convolution in a loop on slow code, ten times as long (https://github.com/jax-ml/jax/issues/12868).
    return jax.default_backend() == "cpu"


def placed_groups(
    batches: Iterable[Any], schedule: Schedule, start: int, steps_per_dispatch: int, parallel: Parallel
) -> Iterator[tuple[int, Any]]:
    """For each dispatch after step `start`: the step that it ends with, and its batches on the devices."""
    groups = in_groups(batches, schedule.dispatches(start, steps_per_dispatch))
    ends = itertools.accumulate(schedule.dispatches(start, steps_per_dispatch), initial=start)
    return zip(itertools.islice(ends, 1, None), parallel.prefetch(groups, parallel.shard_steps), strict=False)
