"""Learning rates: schedules by step, and how they go on where options change during a run."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax

from hvq_jax.registry import check_choice

# Learning rates by step, after warm-up. Each takes the rate and the number of steps.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, num_steps: optax.constant_schedule(rate),
    "cosine": lambda rate, num_steps: optax.cosine_decay_schedule(rate, max(num_steps, 1)),
}

_AT_ONCE = 1024  # rates are computed for so many steps, always the same ones, so that a resumed run has the same bits


@dataclasses.dataclass(frozen=True)
class Rates:
    """Learning rates of a training of `num_steps` steps: a warm-up to `learning_rate`, the highest, and a schedule.

    A warm-up takes at most half of the steps, so that a short run learns and decays too.
    """

    learning_rate: float
    num_steps: int
    schedule: str = "constant"
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Check that there is such a schedule; raise ArgumentError."""
        check_choice("schedule", self.schedule, SCHEDULES)

    def by_step(self) -> optax.Schedule:
        """Return the learning rate by the number of steps taken before.

        The first step of a warm-up of W steps takes 1/W of the rate, the last one all of it.

        >>> rates = Rates(0.1, 8, "cosine", warmup_steps=4).by_step()
        >>> [round(float(rates(step)), 3) for step in range(9)]
        [0.025, 0.05, 0.075, 0.1, 0.1, 0.085, 0.05, 0.015, 0.0]
        """
        warmup_steps = self.warmup_steps_after(0)
        rates = SCHEDULES[self.schedule](self.learning_rate, self.num_steps - warmup_steps)
        if not warmup_steps:
            return rates
        return optax.join_schedules(
            [lambda step: self.learning_rate * (step + 1) / warmup_steps, rates], [warmup_steps]
        )

    def going_on_from(self, before: optax.Schedule, step: int) -> optax.Schedule:
        """Return the rates of `before` up to `step`, and these from there to their last step.

        The rate goes on from where it was to `learning_rate`, within a warm-up of at most half of the steps left; then
        the schedule covers the remaining steps. So the rate does not jump, and the loss does not either.

        >>> before = Rates(0.1, 4, "cosine").by_step()
        >>> rates = Rates(0.05, 12, "cosine", warmup_steps=4).going_on_from(before, 4)
        >>> [round(float(rates(step)), 3) for step in range(3, 13)]
        [0.015, 0.013, 0.025, 0.038, 0.05, 0.05, 0.043, 0.025, 0.007, 0.0]
        """
        warmup_steps = self.warmup_steps_after(step)
        with jax.ensure_compile_time_eval():
            first = float(before(step))
        then = SCHEDULES[self.schedule](self.learning_rate, max(self.num_steps - step, 0) - warmup_steps)
        if warmup_steps:
            change = (self.learning_rate - first) / warmup_steps
            then = optax.join_schedules([lambda taken: first + change * (taken + 1), then], [warmup_steps])
        return optax.join_schedules([before, then], [step])

    def warmup_steps_after(self, step: int) -> int:
        """Return the steps of a warm-up that begins after `step`."""
        return min(self.warmup_steps, max(self.num_steps - step, 0) // 2)


class Stretch(NamedTuple):
    """A part of the steps of a training that takes these rates."""

    rates: Rates
    until: int | None = None  # the step at which the next stretch begins; None for the last


def rates_of(stretches: Sequence[Stretch]) -> optax.Schedule:
    """Return the rates of all stretches, by step; each goes on from the one before, see `Rates.going_on_from`."""
    rates = stretches[0].rates.by_step()
    for before, after in itertools.pairwise(stretches):
        if after.rates != before.rates and before.until is not None:
            rates = after.rates.going_on_from(rates, before.until)
    return rates


def each_rate(stretches: Sequence[Stretch], start: int) -> Iterator[np.float32]:
    """Yield the learning rate of every step after step `start`, without end."""
    rates = jax.jit(rates_of(stretches))
    for first in itertools.count(start - start % _AT_ONCE, _AT_ONCE):
        computed = np.asarray(rates(first + np.arange(_AT_ONCE, dtype=np.int32)), np.float32)
        yield from np.broadcast_to(computed, _AT_ONCE)[max(start - first, 0) :]
