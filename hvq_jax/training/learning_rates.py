"""Learning rates: schedules by step, and how they go on where options change during a run."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import jax
import optax

from hvq_jax.registry import check_choice, choose

# Learning rates by step, after warm-up. Each takes the rate and the number of steps.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, num_steps: optax.constant_schedule(rate),
    "cosine": lambda rate, num_steps: optax.cosine_decay_schedule(rate, max(num_steps, 1)),
}


@dataclasses.dataclass(frozen=True)
class Rates:
    """The arguments of `learning_rates`."""

    learning_rate: float
    num_steps: int
    schedule: str
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Check that there is such a schedule; raise ArgumentError."""
        check_choice("schedule", self.schedule, SCHEDULES)

    def by_step(self) -> optax.Schedule:
        """Return `learning_rates`."""
        return learning_rates(**dataclasses.asdict(self))


Stretches = Sequence[tuple[int, Rates]]  # one after another, each with the step until which it holds (the last: 0)


def rates_of(stretches: Stretches) -> optax.Schedule:
    """Return the rates of all stretches, by step; each goes on from the one before as `continued_rates` says."""
    rates = stretches[0][1].by_step()
    for (until, before), (_, after) in itertools.pairwise(stretches):
        if after != before:
            rates = continued_rates(rates, until, **dataclasses.asdict(after))
    return rates


def learning_rates(learning_rate: float, num_steps: int, *, schedule: str, warmup_steps: int = 0) -> optax.Schedule:
    """Return the learning rate by the number of steps taken before; the highest is `learning_rate`.

    The first step of a warm-up of W steps takes 1/W of the rate, the last one all of it. A warm-up takes at most half
    of the steps, so that a short run learns and decays too.

    >>> rates = learning_rates(0.1, 8, schedule="cosine", warmup_steps=4)
    >>> [round(float(rates(step)), 3) for step in range(9)]
    [0.025, 0.05, 0.075, 0.1, 0.1, 0.085, 0.05, 0.015, 0.0]
    """
    warmup_steps = min(warmup_steps, num_steps // 2)
    rates = choose("schedule", schedule, SCHEDULES)(learning_rate, num_steps - warmup_steps)
    if not warmup_steps:
        return rates
    return optax.join_schedules([lambda step: learning_rate * (step + 1) / warmup_steps, rates], [warmup_steps])


def continued_rates(
    before: optax.Schedule, step: int, learning_rate: float, num_steps: int, *, schedule: str, warmup_steps: int = 0
) -> optax.Schedule:
    """Return the rates of `before` up to `step`, and from there those of another schedule that ends at `num_steps`.

    The rate goes on from where it was, within the steps of a warm-up, at most half of those left, to `learning_rate`;
    then the schedule covers the remaining steps. So the rate does not jump, and the loss does not either.

    >>> before = learning_rates(0.1, 4, schedule="cosine")
    >>> rates = continued_rates(before, 4, 0.05, 12, schedule="cosine", warmup_steps=4)
    >>> [round(float(rates(step)), 3) for step in range(3, 13)]
    [0.015, 0.013, 0.025, 0.038, 0.05, 0.05, 0.043, 0.025, 0.007, 0.0]
    """
    left = max(num_steps - step, 0)
    warmup_steps = min(warmup_steps, left // 2)
    with jax.ensure_compile_time_eval():
        first = float(before(step))
    then = choose("schedule", schedule, SCHEDULES)(learning_rate, left - warmup_steps)
    if warmup_steps:
        change = (learning_rate - first) / warmup_steps
        then = optax.join_schedules([lambda taken: first + change * (taken + 1), then], [warmup_steps])
    return optax.join_schedules([before, then], [step])
