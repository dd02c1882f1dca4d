"""The one training loop, shared by the autoencoder and the prior."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import AnySplit
from hvq_jax.data.pipeline import Batch, eval_batches, steps_per_epoch, train_batches
from hvq_jax.errors import Preempted, UserError
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.cluster import is_first
from hvq_jax.training.dispatch import Schedule, compile_dispatch, placed_groups
from hvq_jax.training.logging import RunLog, SilentLog, in_one_line
from hvq_jax.training.parallel import Parallel
from hvq_jax.training.preemption import GOES_ON, Preemption
from hvq_jax.training.profiling import StepProfiler
from hvq_jax.training.state import (
    LossFunction,
    TrainState,
    create_state,
    make_optimizer,
    train_step,
)
from hvq_jax.training.step_log import NotFiniteError, StepLog

_FIRST_BATCHES = 4  # so many make the codes that start from data: enough vectors for a codebook of usual size


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the loop has to know of a stage. All but `summarise…` and `show` are pure and get compiled."""

    name: str
    objective: str  # the validation figure whose smallest value makes the best checkpoint
    init: Callable[[jax.Array], tuple[Any, Any]]  # key -> (params, model_state)
    loss: LossFunction
    evaluate: Callable[[Any, Any, Batch], Any]  # (params, model_state, batch) -> sums that add up
    summarise_steps: Callable[[Any], dict[str, float]]  # metrics with a leading axis of steps
    summarise: Callable[[Any], dict[str, float]]  # sums over a whole split -> figures
    show: Callable[[RunLog, int, Any, Any, Any], None]  # (log, step, params, model_state, sums)
    # (params, model_state, batch, key, axis_name) -> (params, model_state), where step 0 has to know the data
    start_from_data: Callable[..., tuple[Any, Any]] | None = None


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How long and how to train; the comments of `configs/default.py` explain each."""

    batch_size: int
    num_epochs: int
    num_steps: int  # 0: by num_epochs
    learning_rate: float
    schedule: str
    warmup_steps: int
    clip_norm: float
    average_decay: float
    log_every_steps: int
    eval_every_steps: int  # 0: every epoch
    checkpoint_every_steps: int  # 0: only after evaluations
    keep_checkpoints: int
    check_replicas_every_steps: int  # 0: never
    steps_per_dispatch: int


@dataclasses.dataclass(frozen=True)
class RunContext:
    """Where and by whom a stage is trained."""

    workdir: Path
    seed: int
    parallel: Parallel
    preemption: Preemption


def checkpoint_folder(stage: Stage, workdir: Path) -> Path:
    """Where the checkpoints of `stage` are."""
    return workdir / "checkpoints" / stage.name


def initial_state(stage: Stage, options: FitOptions, num_steps: int, seed: int) -> TrainState:
    """The state at step 0, from the run's seed."""
    params, model_state = stage.init(jax.random.key(seed))
    optimizer = optimizer_of(options, num_steps)
    return create_state(params, model_state, optimizer, average_decay=options.average_decay)


def first_state(
    stage: Stage,
    train: AnySplit,
    *,
    options: FitOptions,
    run: RunContext,
    augmentation: Augmentation | None = None,
) -> TrainState:
    """`initial_state` on the devices, with what the stage makes of the first batches, which are trained on as well."""
    parallel, num_steps = run.parallel, num_training_steps(options, train)
    state = parallel.replicate(jax.jit(partial(initial_state, stage, options, num_steps, run.seed))())
    start_from_data = stage.start_from_data
    if start_from_data is None:
        return state
    key = jax.random.fold_in(jax.random.key(run.seed), 2**32 - 1)  # not that of any step

    def start(state: TrainState, batch: Batch) -> TrainState:
        params, model_state = start_from_data(state.params, state.model_state, batch, key, parallel.axis_name)
        optimizer = optimizer_of(options, num_steps)
        return create_state(params, model_state, optimizer, average_decay=options.average_decay)

    num_batches = min(_FIRST_BATCHES, steps_per_epoch(train, options.batch_size))
    # As one large batch, which every process has its share of.
    batches = train_batches(
        train,
        batch_size=num_batches * options.batch_size,
        seed=run.seed,
        **parallel.share,
        augmentation=augmentation,
    )
    with contextlib.closing(batches):
        started = parallel.compile(start)(state, parallel.shard(next(batches)))
    return parallel.replicate(jax.device_get(started))


def num_training_steps(options: FitOptions, train: AnySplit) -> int:
    """Steps in all."""
    return options.num_steps or options.num_epochs * steps_per_epoch(train, options.batch_size)


def optimizer_of(options: FitOptions, num_steps: int) -> optax.GradientTransformation:
    """Adam and its schedule over `num_steps` steps, as `options` say."""
    return make_optimizer(
        learning_rate=options.learning_rate,
        num_steps=num_steps,
        schedule=options.schedule,
        warmup_steps=options.warmup_steps,
        clip_norm=options.clip_norm,
    )


def fit(
    stage: Stage,
    train: AnySplit,
    validation: AnySplit,
    *,
    options: FitOptions,
    run: RunContext,
    augmentation: Augmentation | None = None,
) -> TrainState:
    """Trains `stage` to its last step, from the last checkpoint if there is one; returns the best state (numpy).

    Raises UserError, after everything already saved is safe, when the loss stops being finite, replicas differ or a
    checkpoint cannot be written; Preempted, with the state saved, when the run is asked to stop.
    """
    num_steps = num_training_steps(options, train)
    create = partial(initial_state, stage, options, num_steps, run.seed)
    abstract = jax.eval_shape(create)
    checkpoints = Checkpoints(
        checkpoint_folder(stage, run.workdir),
        objective=stage.objective,
        keep=options.keep_checkpoints,
    )
    try:
        state = checkpoints.restore_latest(abstract)
        if state is None or state.step < num_steps:
            if state is None:
                state = first_state(stage, train, options=options, run=run, augmentation=augmentation)
            else:
                state = run.parallel.replicate(state)
            batches = train_batches(
                train,
                batch_size=options.batch_size,
                seed=run.seed,
                start=int(state.step),
                **run.parallel.share,
                augmentation=augmentation,
            )
            epoch = steps_per_epoch(train, options.batch_size)
            with contextlib.closing(batches), run.preemption.deferred():
                _train(stage, state, batches, validation, epoch, num_steps, checkpoints, options, run)
        return checkpoints.restore_best(abstract)
    finally:
        checkpoints.close()


def _train(
    stage: Stage,
    state: TrainState,
    batches: Iterator[Batch],
    validation: AnySplit,
    steps_per_epoch: int,
    num_steps: int,
    checkpoints: Checkpoints,
    options: FitOptions,
    run: RunContext,
) -> None:
    parallel = run.parallel
    dispatch = compile_dispatch(_step_function(stage, options, num_steps, run), parallel)
    evaluate = partial(evaluator(stage, parallel), split=validation, batch_size=options.batch_size)
    start = int(state.step)
    schedule = _schedule(options, steps_per_epoch, num_steps)
    log = RunLog(run.workdir, stage.name, start_step=start, num_steps=num_steps) if is_first() else SilentLog()
    if start:
        log.say(f"goes on from the checkpoint of step {start}")
    profiler = StepProfiler(run.workdir, stage.name, start_step=start, last_step=num_steps)
    step_log = StepLog(log, stage.summarise_steps, start_step=start, num_steps=num_steps, batch_size=options.batch_size)
    try:
        for step, group in placed_groups(batches, schedule, start, options.steps_per_dispatch, parallel):
            profiler.before(state)
            state, reports = dispatch(state, group)
            step_log.write()  # the interval before, now that the devices have this step to do
            if line := profiler.after(step, state):
                log.say(line)
            step_log.add(reports)
            stops = run.preemption.requested() and step < num_steps
            saves = schedule.saves(step) or stops
            if schedule.logs(step) or stops:
                step_log.close_interval(step)
            if saves or schedule.checks_replicas(step):
                step_log.write()
            if schedule.checks_replicas(step):
                _check_replicas(stage, parallel, state, step, checkpoints)
            figures = _validate(stage, evaluate, state, step, checkpoints, log) if schedule.evaluates(step) else None
            if saves:
                checkpoints.save(step, state, figures)
                step_log.restart_clock()
            if stops:
                checkpoints.wait()
                raise Preempted(f"stopped by SIGTERM, {stage.name} saved at step {step}: {GOES_ON}")
    except NotFiniteError as error:
        raise _diverged(stage, str(error), error.step, checkpoints) from None
    else:
        checkpoints.wait()
    finally:
        if line := profiler.close():
            log.say(line)
        log.close()


def _step_function(stage: Stage, options: FitOptions, num_steps: int, run: RunContext) -> Callable[..., Any]:
    """`train_step` of this stage: (state, batch) -> (state, report)."""
    return partial(
        train_step,
        loss_function=stage.loss,
        optimizer=optimizer_of(options, num_steps),
        seed=run.seed,
        average_decay=options.average_decay,
        axis_name=run.parallel.axis_name,
    )


def _schedule(options: FitOptions, steps_per_epoch: int, num_steps: int) -> Schedule:
    return Schedule(
        num_steps=num_steps,
        log_every_steps=options.log_every_steps,
        eval_every_steps=options.eval_every_steps or steps_per_epoch,
        checkpoint_every_steps=options.checkpoint_every_steps,
        check_replicas_every_steps=options.check_replicas_every_steps,
    )


def _validate(
    stage: Stage,
    evaluate: Callable[[TrainState], Any],
    state: TrainState,
    step: int,
    checkpoints: Checkpoints,
    log: RunLog,
) -> dict[str, float]:
    """The figures of the validation split, logged; UserError where they are not finite."""
    sums = evaluate(state)
    figures = stage.summarise(sums)
    # Parameters may be spoilt by the very step whose loss was still finite.
    if not np.isfinite(figures[stage.objective]):
        raise _diverged(stage, f"the validation {stage.objective} is {figures[stage.objective]}", step, checkpoints)
    log.record("validation", step, figures)
    log.say(f"validation at step {step}: {in_one_line(figures)}")
    stage.show(log, step, state.eval_params, state.model_state, sums)
    return figures


def evaluator(stage: Stage, parallel: Parallel) -> Callable[..., Any]:
    """A compiled `evaluate(state, split=..., batch_size=...)` that gives the sums over a whole split, on the host."""

    def evaluate_batch(state: tuple[Any, Any], batch: Batch) -> Any:
        sums = stage.evaluate(*state, batch)
        return jax.lax.psum(sums, parallel.axis_name) if parallel.axis_name else sums

    compiled = parallel.compile(evaluate_batch)

    def evaluate(
        state: TrainState,
        *,
        split: AnySplit,
        batch_size: int,
        watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
    ) -> Any:
        """`watch` passes the batches on, and may raise to stop."""
        variables = (state.eval_params, state.model_state)
        with contextlib.closing(eval_batches(split, batch_size=batch_size, **parallel.share)) as batches:
            # One at a time: a split larger than the device's memory would otherwise be queued on it.
            sums = [jax.device_get(compiled(variables, batch)) for batch in watch(parallel.prefetch(batches))]
        # On the host in float64: counts of positions stay exact beyond 2**24.
        return jax.tree.map(lambda *parts: np.sum(np.asarray(parts, np.float64), axis=0), *sums)

    return evaluate


def _check_replicas(stage: Stage, parallel: Parallel, state: TrainState, step: int, checkpoints: Checkpoints) -> None:
    if drifted := parallel.drifted_devices(state):
        checkpoints.wait()
        raise UserError(
            f"{stage.name}: at step {step} the state on devices {', '.join(map(str, drifted))} is not that of device "
            f"0: a reduction is missing or a device miscalculates; the last checkpoint is {_newest(checkpoints)}"
        )


def _newest(checkpoints: Checkpoints) -> str:
    return f"that of step {checkpoints.steps()[-1]}" if checkpoints.steps() else "none"


def _diverged(stage: Stage, what: str, step: int, checkpoints: Checkpoints) -> UserError:
    checkpoints.wait()
    return UserError(
        f"{stage.name}: {what} at step {step}; the last checkpoint before it is {_newest(checkpoints)}; try a lower "
        "learning_rate or a clip_norm, in another --workdir"
    )
