"""The training state and the training step, shared by both stages."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

# (params, model_state, batch, key, axis_name) -> (loss, (model_state, metrics)); see `Stage.loss`.
LossFunction = Callable[..., tuple[jax.Array, tuple[Any, Any]]]


@struct.dataclass
class TrainState:
    """Everything that a run needs to resume; saved and restored as a whole."""

    step: jax.Array  # int32 scalar, steps taken; also the number of batches consumed
    params: Any
    model_state: Any  # what the loss updates without gradients
    opt_state: optax.OptState
    average_params: Any  # moving average of the parameters, None if it is off

    @property
    def eval_params(self) -> Any:
        """The parameters for evaluation and sampling."""
        return self.params if self.average_params is None else self.average_params


@struct.dataclass
class StepReport:
    """The report of one step, equal on all devices."""

    loss: jax.Array  # scalar float32
    gradient_norm: jax.Array  # scalar float32, before clipping
    metrics: Any  # the stage's own


def adam(rates: optax.Schedule, clip_norm: float = 0.0) -> optax.GradientTransformation:
    """Return Adam with these learning rates and, unless `clip_norm` is 0, clipping by global norm."""
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*clip, optax.adam(rates))


def trained_part(params: Any, frozen: Collection[str]) -> Any:
    """Return the parameters that are trained: all, or a dictionary of them without the parts `frozen`."""
    return {part: values for part, values in params.items() if part not in frozen} if frozen else params


def _with(params: Any, trained: Any, frozen: Collection[str]) -> Any:
    """Return `params` with the parameters that are trained replaced by `trained`."""
    return {**params, **trained} if frozen else trained


def create_state(
    params: Any,
    model_state: Any,
    optimizer: optax.GradientTransformation,
    *,
    average_decay: float,
    frozen: Collection[str] = (),
) -> TrainState:
    """Return the state at step 0; `average_decay` 0 keeps no moving average of the parameters.

    The optimizer keeps nothing of the parts of the parameters that are `frozen`.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(trained_part(params, frozen)),
        # A copy: a donated state must not hold one buffer twice.
        average_params=jax.tree.map(jnp.copy, params) if average_decay else None,
    )


def train_step(
    state: TrainState,
    batch: Any,
    *,
    loss_function: LossFunction,
    optimizer: optax.GradientTransformation,
    seed: int,
    average_decay: float = 0.0,
    axis_name: str | None = None,
    frozen: Collection[str] = (),
) -> tuple[TrainState, StepReport]:
    """Take one step on this device's shard of the batch; gradients and metrics are means over the devices.

    The key is folded from (seed, step) and equal on all devices, so any step can be replayed from its state. The parts
    of the parameters that are `frozen` are not touched.
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    trained = trained_part(state.params, frozen)

    def loss_of(trained: Any, *rest: Any) -> Any:
        return loss_function(_with(state.params, trained, frozen), *rest)

    differentiate = jax.value_and_grad(loss_of, has_aux=True)
    (loss, (model_state, metrics)), gradients = differentiate(trained, state.model_state, batch, key, axis_name)
    if axis_name:
        loss, gradients, metrics = jax.lax.pmean((loss, gradients, metrics), axis_name)
    updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    average_params = state.average_params
    if average_params is not None:
        # A short memory at first, so that the random initialisation is forgotten soon.
        step = state.step.astype(jnp.float32)
        decay = jnp.minimum(average_decay, (1 + step) / (10 + step))
        average = optax.incremental_update(trained, trained_part(average_params, frozen), 1 - decay)
        average_params = _with(average_params, average, frozen)
    params = _with(state.params, trained, frozen)
    new_state = TrainState(state.step + 1, params, model_state, opt_state, average_params)
    return new_state, StepReport(loss, optax.tree.norm(gradients), metrics)
