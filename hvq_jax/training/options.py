"""Options for training a stage."""

import dataclasses

import optax

from hvq_jax.errors import ArgumentError
from hvq_jax.options import Options, option
from hvq_jax.training.learning_rates import SCHEDULES, Rates
from hvq_jax.training.state import adam


@dataclasses.dataclass(frozen=True)
class FitOptions(Options):
    """Options for training a stage."""

    batch_size: int = option(128, "items per step, over all devices", low=1)
    accumulate_steps: int = option(
        1,
        "equal parts of a batch that the networks see one after another, with the memory of a part; the gradient is "
        "that of the batch, up to rounding, but for batch normalisation, which is by part; must divide batch_size",
        low=1,
        recorded=True,
        added=True,
    )
    num_epochs: int = option(20, "passes over the training split", low=1, recorded=True)
    num_steps: int = option(0, "training steps; 0: by num_epochs", low=0, recorded=True)
    learning_rate: float = option(3e-3, "learning rate of Adam", low=0, recorded=True)
    schedule: str = option(
        "cosine", "learning rate: constant, or cosine to 0 at the last step", choices=SCHEDULES, recorded=True
    )
    warmup_steps: int = option(
        100,
        "steps until the learning rate is reached, linearly; at most half of all steps; 0: from the first",
        low=0,
        recorded=True,
    )
    clip_norm: float = option(0.0, "largest norm of the whole gradient; 0: off", low=0)
    average_decay: float = option(
        0.0, "decay of the moving average of parameters that is evaluated; 0: off", low=0, high=0.999999
    )
    log_every_steps: int = option(50, "steps per log record", low=1, changeable=True)
    eval_every_steps: int = option(
        0, "steps per evaluation on the validation split; 0: one epoch", low=0, recorded=True
    )
    checkpoint_every_steps: int = option(
        0, "steps per checkpoint, besides those after evaluations; 0: only those", low=0, changeable=True
    )
    keep_checkpoints: int = option(
        2, "newest checkpoints to keep, besides the best on validation", low=1, changeable=True
    )
    check_replicas_every_steps: int = option(
        500,
        "steps per check that all devices hold the same state, bit for bit; also after the first and the last step; "
        "0: never",
        low=0,
        changeable=True,
    )
    steps_per_dispatch: int = option(
        0,
        "training steps per compiled dispatch, ideally a divisor of every ..._every_steps; 0: 1 on CPU, where "
        "compiling takes that many times as long, and 10 on other devices",
        low=0,
        high=10_000,
        changeable=True,  # within rounding
    )

    def __post_init__(self) -> None:
        """Check the options, and that batches can be cut into parts."""
        super().__post_init__()
        if self.batch_size % self.accumulate_steps:
            raise ArgumentError(
                f"accumulate_steps={self.accumulate_steps}", f"must divide batch_size={self.batch_size}"
            )

    @property
    def part_size(self) -> int:
        """The items that the networks see at a time, over all devices."""
        return self.batch_size // self.accumulate_steps

    def make_optimizer(self, num_steps: int) -> optax.GradientTransformation:
        """Return Adam with its schedule over `num_steps` steps."""
        return adam(self.rates(num_steps).by_step(), self.clip_norm)

    def rates(self, num_steps: int) -> Rates:
        """Return the learning rates over `num_steps` steps."""
        return Rates(self.learning_rate, num_steps, self.schedule, self.warmup_steps)
