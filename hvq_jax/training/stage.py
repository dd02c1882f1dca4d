"""The interface between the training loop and a stage."""

import abc
import dataclasses
from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

import jax
import numpy as np

from hvq_jax.data.pipeline import Batch
from hvq_jax.training.logging import RunLog

Params = Any
ModelState = Any  # what the loss updates without gradients


class Stage(abc.ABC):
    """A stage of a run. Subclasses are frozen dataclasses with `eq=False`; their pure methods get compiled.

    Stages are equal where all of their fields are, arrays by value, so that equal ones share what is compiled.
    """

    name: ClassVar[str]
    objective: ClassVar[str]  # the validation metric whose smallest value makes the best checkpoint
    items: ClassVar[str]  # what a batch holds, in logs: "images" or "latents"

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is a stage of the same class with equal fields."""
        return type(other) is type(self) and self._values == other._values

    def __hash__(self) -> int:
        """Return a hash of the values of all fields."""
        return hash(self._values)

    @cached_property
    def _values(self) -> tuple[Hashable, ...]:
        fields = (getattr(self, field.name) for field in dataclasses.fields(cast(Any, self)))
        return tuple(_by_value(value) for value in (*fields, *self.named_parts))

    @property
    def named_parts(self) -> tuple[Any, ...]:
        """What fields only name, such as a row of `LATENTS` or a class of one's own, either of which may change."""
        return ()

    @property
    def blank(self) -> "Stage":
        """The stage without the data on which `init` does not depend: what is compiled for one serves all."""
        return self

    @abc.abstractmethod
    def init(self, key: jax.Array) -> tuple[Params, ModelState]:
        """Return fresh params and model state."""

    @abc.abstractmethod
    def loss(
        self, params: Params, state: ModelState, batch: Batch, key: jax.Array, axis_name: str | None, num_parts: int = 1
    ) -> tuple[jax.Array, tuple[ModelState, Any]]:
        """Return the loss of a batch, and the model state and the metrics after it.

        The networks see the batch of this device in `num_parts` equal parts, one after another; see `parts.py`.
        """

    @abc.abstractmethod
    def evaluate(self, params: Params, state: ModelState, batch: Batch) -> Any:
        """Return sums over a batch, which add up over a split."""

    @abc.abstractmethod
    def summarise_steps(self, metrics: Any) -> dict[str, float]:
        """Return the log record of several training steps; each leaf of `metrics` has a leading axis of steps."""

    @abc.abstractmethod
    def summarise(self, sums: Any) -> dict[str, float]:
        """Return the log record of a whole split."""

    @staticmethod
    def in_words(metrics: Mapping[str, float]) -> str:
        """Return the metrics of a split that matter most, for people; all of them by default."""
        return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())

    @property
    def frozen(self) -> tuple[str, ...]:
        """The parts of the parameters that are not trained."""
        return ()

    @property
    def starts_from_data(self) -> bool:
        """Whether `start_from_data` has to be called before the first step."""
        return False

    def start_from_data(
        self, params: Params, state: ModelState, batch: Batch, key: jax.Array, axis_name: str | None, num_parts: int = 1
    ) -> tuple[Params, ModelState]:
        """Return fresh params and model state initialised from data."""
        del batch, key, axis_name, num_parts
        return params, state

    def warnings(self, sums: Any) -> dict[str, str]:
        """Return one line for each kind of fault that the sums over a split show."""
        del sums
        return {}

    def step_warnings(self, metrics: Any) -> dict[str, str]:
        """Return one line for each kind of fault that training steps show; arguments as in `summarise_steps`."""
        del metrics
        return {}

    def show(self, log: RunLog, step: int, params: Params, state: ModelState, sums: Any) -> None:  # noqa: B027
        """Log images at an evaluation; nothing by default."""


def _by_value(value: Any) -> Hashable:
    """Return what stands for a value where it is compared; what cannot be compared equals nothing else."""
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return object()
    return cast(Hashable, value)
