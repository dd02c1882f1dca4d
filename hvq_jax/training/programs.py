"""The compiled programs of training, which runs of one process share.

Tracing and lowering the programs of a small model takes seconds, even where XLA finds them in its cache on disk. Runs
that train an equal stage (see `Stage`) on the same devices use the same programs, unless they differ in the seed or in
an option that is compiled into one.
"""

import contextlib
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from hvq_jax.data.datasets import AnySplit
from hvq_jax.data.pipeline import Batch, eval_batches
from hvq_jax.devices.parallel import Parallel
from hvq_jax.training.dispatch import compile_dispatch
from hvq_jax.training.options import FitOptions
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import StepReport, TrainState, adam, create_state, train_step

_KEPT = 8  # programs of each kind: those of the last few stages, since each holds on to memory


class Taken(NamedTuple):
    """What a training step takes besides the state."""

    batch: Batch
    rate: np.ndarray  # [local devices] float32: the learning rate, for each device, since it is split like the batch

    @classmethod
    def by(cls, batch: Batch, rate: float | np.float32) -> "Taken":
        """Return a batch of this process with its learning rate."""
        return cls(batch, np.full(jax.local_device_count(), rate, np.float32))


def initial_state(stage: Stage, options: FitOptions, seed: int) -> TrainState:
    """Return the state at step 0, from the run's seed."""
    return _initial_state(stage, seed, options.clip_norm, options.average_decay)


@lru_cache(_KEPT)
def abstract_variables(stage: Stage) -> tuple[Any, Any]:
    """Return the params and the model state of a stage, as shapes and dtypes."""
    traced: tuple[Any, Any] = jax.eval_shape(_init(stage.blank), jax.random.key(0))
    return traced


@lru_cache(_KEPT)
def _init(stage: Stage) -> Callable[[jax.Array], tuple[Any, Any]]:
    """Return `stage.init`, traced once for the shapes of a state and for the program that makes it."""
    return jax.jit(stage.init, inline=True)


def abstract_state(stage: Stage, options: FitOptions) -> TrainState:
    """Return the training state of a stage, as shapes and dtypes."""
    create = partial(_state, stage, clip_norm=options.clip_norm, average_decay=options.average_decay)
    state: TrainState = jax.eval_shape(create, abstract_variables(stage))
    return state


def _initial_state(stage: Stage, seed: int, clip_norm: float, average_decay: float) -> TrainState:
    return _state(stage, _init(stage)(jax.random.key(seed)), clip_norm, average_decay)


def _state(stage: Stage, variables: tuple[Any, Any], clip_norm: float, average_decay: float) -> TrainState:
    """Return the state at step 0 of a stage with these params and model state."""
    optimizer = adam(optax.constant_schedule(0.0), clip_norm)  # its state has no rates
    return create_state(*variables, optimizer, average_decay=average_decay, frozen=stage.frozen)


# The functions that are kept take of the options what their programs depend on, and nothing else.


def compiled_initial_state(stage: Stage, options: FitOptions, seed: int) -> Callable[[], TrainState]:
    """Return `initial_state` of these arguments, compiled; `jax.eval_shape` of it shares its trace."""
    return _compiled_initial_state(stage.blank, seed, options.clip_norm, options.average_decay)


@lru_cache(_KEPT)
def _compiled_initial_state(
    stage: Stage, seed: int, clip_norm: float, average_decay: float
) -> Callable[[], TrainState]:
    return jax.jit(partial(_initial_state, stage, seed, clip_norm, average_decay))


def compiled_start(
    stage: Stage, options: FitOptions, seed: int, num_parts: int, parallel: Parallel
) -> Callable[[TrainState, Batch], TrainState]:
    """Return the compiled function that initialises a state at step 0 from a batch, seen in `num_parts` parts."""
    return _compiled_start(stage, seed, num_parts, parallel, options.clip_norm, options.average_decay)


@lru_cache(_KEPT)
def _compiled_start(
    stage: Stage, seed: int, num_parts: int, parallel: Parallel, clip_norm: float, average_decay: float
) -> Callable[[TrainState, Batch], TrainState]:
    key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)  # not that of any step

    def start(state: TrainState, batch: Batch) -> TrainState:
        variables = stage.start_from_data(state.params, state.model_state, batch, key, parallel.axis_name, num_parts)
        return _state(stage, variables, clip_norm, average_decay)

    return parallel.compile(start)


def compiled_steps(
    stage: Stage, options: FitOptions, seed: int, parallel: Parallel
) -> Callable[[TrainState, Any], tuple[TrainState, StepReport]]:
    """Return `train_step` of a stage on `Taken`, compiled as by `compile_dispatch`.

    Learning rates are given with the batches: a program is the same for all rates, schedules and numbers of steps.
    """
    parts, clip_norm, average_decay = options.accumulate_steps, options.clip_norm, options.average_decay
    return _compiled_steps(stage, seed, parallel, parts, clip_norm, average_decay)


@lru_cache(_KEPT)
def _compiled_steps(
    stage: Stage, seed: int, parallel: Parallel, num_parts: int, clip_norm: float, average_decay: float
) -> Callable[[TrainState, Any], tuple[TrainState, StepReport]]:
    def step(state: TrainState, taken: Taken) -> tuple[TrainState, StepReport]:
        return train_step(
            state,
            taken.batch,
            loss_function=partial(stage.loss, num_parts=num_parts),
            optimizer=adam(lambda _: taken.rate[0], clip_norm),
            seed=seed,
            average_decay=average_decay,
            axis_name=parallel.axis_name,
            frozen=stage.frozen,
        )

    return compile_dispatch(step, parallel)


def evaluator(stage: Stage, parallel: Parallel) -> Callable[..., Any]:
    """Return a compiled `evaluate(state, split=..., batch_size=...)` that sums over a split, on the host."""
    compiled = _evaluation(stage, parallel)

    def evaluate(
        state: TrainState,
        *,
        split: AnySplit,
        batch_size: int,
        watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
    ) -> Any:
        """Return the sums over `split`; `watch` passes the batches on and may raise to stop."""
        variables = (state.eval_params, state.model_state)
        with contextlib.closing(eval_batches(split, batch_size=batch_size, **parallel.share)) as batches:
            # One at a time: a split larger than the device's memory would otherwise be queued on it.
            sums = [jax.device_get(compiled(variables, batch)) for batch in watch(parallel.prefetch(batches))]
        # On the host in float64: counts of positions stay exact beyond 2**24.
        return jax.tree.map(lambda *parts: np.sum(np.asarray(parts, np.float64), axis=0), *sums)

    return evaluate


@lru_cache(_KEPT)
def _evaluation(stage: Stage, parallel: Parallel) -> Callable[..., Any]:
    """Return the compiled evaluation of a batch: the same one for the same stage, for all of its splits."""

    def evaluate_batch(state: tuple[Any, Any], batch: Batch) -> Any:
        sums = stage.evaluate(*state, batch)
        return jax.lax.psum(sums, parallel.axis_name) if parallel.axis_name else sums

    return parallel.compile(evaluate_batch)
