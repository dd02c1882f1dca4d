"""The compiled programs of training, which runs of one process share.

Tracing and lowering the programs of a small model takes seconds, even where XLA finds them in its cache on disk. Runs
that train an equal stage (see `Stage`) with equal options, on the same devices, use the same programs.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from hvq_jax.data.datasets import AnySplit
from hvq_jax.data.pipeline import Batch, eval_batches
from hvq_jax.devices.parallel import Parallel
from hvq_jax.training.dispatch import compile_dispatch
from hvq_jax.training.learning_rates import Stretch, rates_of
from hvq_jax.training.options import FitOptions
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import StepReport, TrainState, adam, create_state, train_step

_KEPT = 8  # programs of each kind: those of the last few stages, since each holds on to memory


def initial_state(stage: Stage, options: FitOptions, num_steps: int, seed: int) -> TrainState:
    """Return the state at step 0, from the run's seed."""
    params, model_state = stage.init(jax.random.key(seed))
    return _state(stage, params, model_state, options, num_steps)


def _state(stage: Stage, params: Any, model_state: Any, options: FitOptions, num_steps: int) -> TrainState:
    """Return the state at step 0 of a stage with these arrays."""
    optimizer = options.make_optimizer(num_steps)
    return create_state(params, model_state, optimizer, average_decay=options.average_decay, frozen=stage.frozen)


@lru_cache(_KEPT)
def compiled_initial_state(stage: Stage, options: FitOptions, num_steps: int, seed: int) -> Callable[[], TrainState]:
    """Return `initial_state` of these arguments, compiled; `jax.eval_shape` of it shares its trace."""
    return jax.jit(partial(initial_state, stage, options, num_steps, seed))


@lru_cache(_KEPT)
def compiled_start(
    stage: Stage, options: FitOptions, num_steps: int, seed: int, num_parts: int, parallel: Parallel
) -> Callable[[TrainState, Batch], TrainState]:
    """Return the compiled function that initialises a state at step 0 from a batch, seen in `num_parts` parts."""
    key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)  # not that of any step

    def start(state: TrainState, batch: Batch) -> TrainState:
        params, model_state = stage.start_from_data(
            state.params, state.model_state, batch, key, parallel.axis_name, num_parts
        )
        return _state(stage, params, model_state, options, num_steps)

    return parallel.compile(start)


@lru_cache(_KEPT)
def compiled_steps(
    stage: Stage, options: FitOptions, stretches: Sequence[Stretch], seed: int, parallel: Parallel
) -> Callable[[TrainState, Any], tuple[TrainState, StepReport]]:
    """Return `train_step` of a stage, compiled as by `compile_dispatch`; `stretches` has its learning rates."""
    step = partial(
        train_step,
        loss_function=partial(stage.loss, num_parts=options.accumulate_steps),
        optimizer=adam(rates_of(stretches), options.clip_norm),
        seed=seed,
        average_decay=options.average_decay,
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
