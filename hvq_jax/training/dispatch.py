"""Several training steps in one compiled computation, to reduce the dispatch overhead on the host.

What happens between steps (logging, evaluation, checkpoints, checks) is known in advance. A dispatch ends wherever
something is due, so that it happens after the same steps no matter how many steps a dispatch contains.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from hvq_jax.devices.loops import unrolls_loops
from hvq_jax.devices.parallel import Parallel
from hvq_jax.training.state import StepReport, TrainState


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The steps, counted from 1, after which each event happens; an interval of 0 means never.

    Between events, `steps_per_dispatch` steps are taken at a time.
    """

    num_steps: int
    log_every_steps: int
    eval_every_steps: int
    checkpoint_every_steps: int
    check_replicas_every_steps: int
    steps_per_dispatch: int = 1

    def evaluates(self, step: int) -> bool:
        """Return whether to evaluate the validation split after `step`; always true after the last step."""
        return step == self.num_steps or _is_multiple(step, self.eval_every_steps)

    def saves(self, step: int) -> bool:
        """Return whether to write a checkpoint after `step`; always true after an evaluation."""
        return self.evaluates(step) or _is_multiple(step, self.checkpoint_every_steps)

    def logs(self, step: int) -> bool:
        """Return whether to log the steps since the last log after `step`; always true before a checkpoint."""
        return self.saves(step) or _is_multiple(step, self.log_every_steps)

    def checks_replicas(self, step: int, *, is_first: bool) -> bool:
        """Return whether to compare the copies of the state after `step`.

        Always true, unless the interval is 0, after the last step and after the first dispatch of a process
        (`is_first`), so that short runs are checked and processes that started differently stop at once.
        """
        every = self.check_replicas_every_steps
        return every > 0 and (is_first or step == self.num_steps or step % every == 0)

    def dispatches(self, start: int) -> Iterator[int]:
        """Yield the steps of each dispatch after step `start`: 1 where fewer than a whole one are left until an event.

        The sizes depend only on the steps of the events, so a run that was stopped after any dispatch continues with
        the same ones.
        """
        while start < self.num_steps:
            events = [start + every - start % every for every in self._intervals() if every]
            event = min([self.num_steps, *events])
            whole, single = divmod(event - start, self.steps_per_dispatch)
            yield from itertools.chain(itertools.repeat(self.steps_per_dispatch, whole), itertools.repeat(1, single))
            start = event

    def _intervals(self) -> Iterator[int]:
        yield self.log_every_steps
        yield self.eval_every_steps
        yield self.checkpoint_every_steps
        yield self.check_replicas_every_steps


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def default_steps_per_dispatch() -> int:
    """Return the steps per dispatch on the devices of this process where the options leave them open.

    An accelerator computes the step of a small model in less time than the host takes to dispatch it. On CPU a dispatch
    gains nothing from more steps, and takes longer to compile with each (`unrolls_loops`).
    """
    return 1 if unrolls_loops() else 10


def in_groups(batches: Iterable[Any], sizes: Iterable[int]) -> Iterator[list[Any]]:
    """Yield the batches in lists of the given sizes."""
    batches = iter(batches)
    for size in sizes:
        group = list(itertools.islice(batches, size))
        if len(group) < size:
            return
        yield group


def compile_dispatch(
    step: Callable[[TrainState, Any], tuple[TrainState, StepReport]], parallel: Parallel
) -> Callable[[TrainState, Any], tuple[TrainState, StepReport]]:
    """Compile `(state, batches) -> (state, reports)`, both with a leading axis of steps (`Parallel.shard_steps`).

    Each number of steps compiles its own program; the state is donated. Several steps in one program give the same
    numbers as separate programs up to rounding, because XLA may fuse them differently.
    """

    def steps(state: TrainState, batches: Any) -> tuple[TrainState, StepReport]:
        if len(jax.tree.leaves(batches)[0]) == 1:  # without a loop, to compile exactly the program of one step
            state, report = step(state, jax.tree.map(lambda x: x[0], batches))
            return state, jax.tree.map(lambda x: x[None], report)
        return jax.lax.scan(step, state, batches, unroll=unrolls_loops())

    return parallel.compile(steps, donate_state=True)


def placed_groups(
    batches: Iterable[Any], schedule: Schedule, start: int, parallel: Parallel
) -> Iterator[tuple[int, Any]]:
    """Yield, for each dispatch after step `start`, its last step and its batches on the devices."""
    groups = in_groups(batches, schedule.dispatches(start))
    ends = itertools.accumulate(schedule.dispatches(start), initial=start)
    return zip(itertools.islice(ends, 1, None), parallel.prefetch(groups, parallel.shard_steps), strict=False)
