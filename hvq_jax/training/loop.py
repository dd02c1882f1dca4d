"""The one training loop, shared by the autoencoder and the prior."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import AnySplit
from hvq_jax.data.pipeline import Batch, steps_per_epoch, train_batches
from hvq_jax.devices.cluster import is_first, say, warn
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.layout import CHECKPOINTS
from hvq_jax.options import LARGEST_INTEGER
from hvq_jax.training.callbacks import Callbacks
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.dispatch import Schedule, default_steps_per_dispatch, placed_groups
from hvq_jax.training.given_arrays import GivenArrays
from hvq_jax.training.learning_rates import Stretch, each_rate, rates_of
from hvq_jax.training.logging import RunLog, SilentLog, Warnings
from hvq_jax.training.options import FitOptions
from hvq_jax.training.profiling import StepProfiler
from hvq_jax.training.programs import Taken, compiled_initial_state, compiled_start, compiled_steps, evaluator
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import TrainState
from hvq_jax.training.step_log import NotFiniteError, StepLog
from hvq_jax.training.writers import Writer

_FIRST_BATCHES = 4  # codes that start from data are made from these: enough vectors for a codebook of usual size


@dataclasses.dataclass(frozen=True)
class RunContext:
    """The context of training: workdir, seed, devices, preemption, profiling, callbacks, writers and first arrays."""

    workdir: Path
    seed: int
    parallel: Parallel
    preemption: Preemption
    profile_steps: int = 0  # steps of each stage to trace, 0: none
    callbacks: Callbacks = dataclasses.field(default_factory=Callbacks)
    writers: Sequence[Writer] = ()
    given: Mapping[str, GivenArrays] = dataclasses.field(default_factory=dict)  # by stage, to start from


def checkpoint_folder(stage: Stage, workdir: Path) -> Path:
    """Return the checkpoint folder of `stage`."""
    return workdir / CHECKPOINTS / stage.name


def first_state(
    stage: Stage,
    train: AnySplit,
    *,
    options: FitOptions,
    run: RunContext,
    augmentation: Augmentation | None = None,
) -> TrainState:
    """Return `initial_state` on the devices, with codes from the first batches where the stage starts from data.

    Arrays that `run.given` has for the stage take the place of random ones, and given codes are kept.
    """
    parallel = run.parallel
    state: Any = compiled_initial_state(stage, options, run.seed)()
    given = run.given.get(stage.name)
    if given is not None:
        params, model_state = given.fill(*jax.device_get((state.params, state.model_state)))
        average = None if state.average_params is None else jax.tree.map(np.copy, params)
        state = state.replace(params=params, model_state=model_state, average_params=average)
    state = parallel.replicate(state)
    if not stage.starts_from_data or (given is not None and given.has_codes):
        return state
    num_batches = min(_FIRST_BATCHES, steps_per_epoch(train, options.batch_size))
    num_parts = num_batches * options.accumulate_steps if options.accumulate_steps > 1 else 1
    # As one large batch, of which every process has its share.
    batches = train_batches(
        train,
        batch_size=num_batches * options.batch_size,
        seed=run.seed,
        **parallel.share,
        augmentation=augmentation,
    )
    with contextlib.closing(batches):
        start = compiled_start(stage, options, run.seed, num_parts, parallel)
        started = start(state, parallel.shard(next(batches)))
    return parallel.replicate(jax.device_get(started))


def num_training_steps(options: FitOptions, train: AnySplit) -> int:
    """Return the total number of training steps; raise ArgumentError if they are more than a step's 32 bits count."""
    num_steps = options.num_steps or options.num_epochs * steps_per_epoch(train, options.batch_size)
    if num_steps > LARGEST_INTEGER:
        raise ArgumentError(f"num_epochs={options.num_epochs}", f"{num_steps} steps: must be at most {LARGEST_INTEGER}")
    return num_steps


def make_schedule(options: FitOptions, train: AnySplit) -> Schedule:
    """Return what happens after which steps of a training on `train`."""
    return Schedule(
        num_steps=num_training_steps(options, train),
        log_every_steps=options.log_every_steps,
        eval_every_steps=options.eval_every_steps or steps_per_epoch(train, options.batch_size),
        checkpoint_every_steps=options.checkpoint_every_steps,
        check_replicas_every_steps=options.check_replicas_every_steps,
        steps_per_dispatch=options.steps_per_dispatch or default_steps_per_dispatch(),
    )


def fit(stage: Stage, train: AnySplit, validation: AnySplit, *, options: FitOptions, run: RunContext) -> TrainState:
    """Train `stage` to its last step, from the last checkpoint if there is one; return the best state (numpy).

    For a stage by itself, without augmentation and always with the same options; errors are those of `fit_or_find`.
    """
    best = fit_or_find(stage, train, validation, options=options, run=run)
    if isinstance(best, TrainState):
        return best
    checkpoints = _open_checkpoints(stage, options, run)
    try:
        state: TrainState = checkpoints.restore_best(_abstract(stage, options, run))
    finally:
        checkpoints.close()
    return state


def _open_checkpoints(stage: Stage, options: FitOptions, run: RunContext) -> Checkpoints:
    folder = checkpoint_folder(stage, run.workdir)
    return Checkpoints(folder, objective=stage.objective, keep=options.keep_checkpoints)


def _abstract(stage: Stage, options: FitOptions, run: RunContext) -> Any:
    """Return the training state as shapes and dtypes."""
    return jax.eval_shape(compiled_initial_state(stage, options, run.seed))


def fit_or_find(
    stage: Stage,
    train: AnySplit,
    validation: AnySplit,
    *,
    options: FitOptions,
    run: RunContext,
    augmentation: Augmentation | None = None,
    earlier: Sequence[tuple[int, FitOptions]] = (),
) -> TrainState | int:
    """Train `stage` as `fit` does; if it was trained to its last step before, return only the step of the best state.

    A finished run that has nothing left to do then ends without reading checkpoints or tracing models.

    Where the options have changed, `earlier` has those of before, each with the step until which they held. The
    learning rate then goes on as `Rates.going_on_from` says.

    Raises UserError, after everything already saved is safe, when the loss stops being finite, replicas differ or a
    checkpoint cannot be written; with the state saved, Preempted when the run is asked to stop, or what a callback
    raised.
    """
    num_steps = num_training_steps(options, train)
    checkpoints = _open_checkpoints(stage, options, run)
    try:
        if (found := checkpoints.best_of_finished(num_steps)) is not None:
            say(f"{stage.name}: was trained to its last step, {num_steps}")
            return found
        abstract = _abstract(stage, options, run)
        best, state = None, checkpoints.restore_latest(abstract)
        if state is not None and state.step >= num_steps:
            say(f"{stage.name}: was trained to its last step, {num_steps}")
            best = state  # where it is the best one, which is the most frequent case, it is not read again
        else:
            if state is None:
                _compile_together(stage, train, abstract, options, run)
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
            schedule = make_schedule(options, train)
            rates = each_rate(_stretches(stage, train, int(state.step), options, earlier), int(state.step))
            with contextlib.closing(batches), run.preemption.deferred():
                taken = map(Taken.by, batches, rates)
                best = _train(stage, state, taken, validation, schedule, checkpoints, options, run)
        if best is None or best.step != checkpoints.best_step():
            best = checkpoints.restore_best(abstract)
        if (lost := checkpoints.lost_best_step()) is not None:
            warn(
                f"{stage.name} warning: the best checkpoint, that of step {lost}, is damaged and was set aside: "
                f"step {best.step} takes its place"
            )
        return best
    finally:
        checkpoints.close()


def _compile_together(stage: Stage, train: AnySplit, abstract: Any, options: FitOptions, run: RunContext) -> None:
    """Compile the initial state and the first steps at the same time, which XLA does without Python's lock.

    Their later calls find them compiled. Whatever is wrong with the initial state is raised by its call.
    """
    parallel = run.parallel
    if jax.process_count() > 1:  # arrays without values cannot be placed as those of several processes are
        return
    create: Any = compiled_initial_state(stage, options, run.seed)
    dispatch: Any = compiled_steps(stage, options, run.seed, parallel)
    items, labels = train.read(np.zeros(options.batch_size, int))  # for their shapes and dtypes
    taken = Taken.by(Batch(items, labels, np.ones(options.batch_size, bool)), options.learning_rate)
    count = next(make_schedule(options, train).dispatches(0))
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(create.lower().compile)
        dispatch.lower(parallel.replicated_shapes(abstract), parallel.shard_steps([taken] * count)).compile()


def _stretches(
    stage: Stage, train: AnySplit, step: int, options: FitOptions, earlier: Sequence[tuple[int, FitOptions]]
) -> tuple[Stretch, ...]:
    """Return the learning rates of all steps; say how they go on where the options change at `step` or later."""
    held: Sequence[tuple[int | None, FitOptions]] = (*earlier, (None, options))
    stretches = tuple(Stretch(each.rates(num_training_steps(each, train)), until) for until, each in held)
    for number, ((before, until), (after, _)) in enumerate(itertools.pairwise(stretches), 1):
        if after != before and until is not None and until >= step:
            last = float(rates_of(stretches[:number])(until - 1))
            say(
                f"{stage.name}: from step {until} on the learning rate goes from {last:.3g} to "
                f"{after.learning_rate:.3g} within {after.warmup_steps_after(until)} steps, then {after.schedule} up "
                f"to step {after.num_steps}"
            )
    return stretches


def lost_best_step(stage: Stage, workdir: Path) -> int | None:
    """Return the step of the stage's best checkpoint if it was damaged and another one took its place, else None."""
    return Checkpoints(checkpoint_folder(stage, workdir), objective=stage.objective, read_only=True).lost_best_step()


@dataclasses.dataclass
class _Best:
    """The best state since the process started, on the host, to avoid reading it from disk."""

    objective: float = math.inf
    state: TrainState | None = None

    def offer(self, objective: float, state: TrainState) -> None:
        if objective <= self.objective:  # the newest of equal ones, as in Orbax
            # A copy: on CPU the arrays would be views of buffers that the next step is given to overwrite.
            self.objective, self.state = objective, jax.tree.map(np.array, state)


def _train(
    stage: Stage,
    state: TrainState,
    taken: Iterator[Taken],
    validation: AnySplit,
    schedule: Schedule,
    checkpoints: Checkpoints,
    options: FitOptions,
    run: RunContext,
) -> TrainState | None:
    """Take the remaining steps; return the best state among those evaluated here."""
    parallel, num_steps, best = run.parallel, schedule.num_steps, _Best()
    dispatch = compiled_steps(stage, options, run.seed, parallel)
    start = int(state.step)
    log: RunLog = SilentLog()
    if is_first():
        log = RunLog(
            run.workdir,
            stage.name,
            start_step=start,
            num_steps=num_steps,
            writers=run.writers,
            callbacks=run.callbacks,
        )
    if start:
        log.say(f"resumes from the checkpoint of step {start}")
    validate = _Validation(stage, evaluator(stage, parallel), validation, options.part_size, checkpoints, log)
    profiler = StepProfiler(run.workdir, stage.name, run.profile_steps, start_step=start, last_step=num_steps)
    step_log = StepLog(log, stage, start_step=start, num_steps=num_steps, batch_size=options.batch_size)
    groups = placed_groups(taken, schedule, start, parallel)
    try:
        for number, (step, group) in enumerate(groups):
            profiler.before(state)
            state, reports = dispatch(state, group)
            step_log.write()  # the previous interval, while the devices compute this step
            if line := profiler.after(step, state):
                log.say(line)
            step_log.add(reports)
            checks_replicas = schedule.checks_replicas(step, is_first=number == 0)
            if schedule.logs(step):
                step_log.close_interval(step)
            if schedule.saves(step) or checks_replicas:
                step_log.write()
            if checks_replicas:
                _check_replicas(stage, parallel, state, step, checkpoints)
            metrics = validate(state, step) if schedule.evaluates(step) else None
            stops = run.preemption.requested() and step < num_steps
            if stops and not schedule.logs(step):
                step_log.close_interval(step)
            if stops or schedule.saves(step):
                step_log.write()
                checkpoints.save(step, state, metrics)
                if metrics is not None:
                    best.offer(metrics[stage.objective], state)
                step_log.restart_clock()
            if stops:
                checkpoints.wait()
                raise run.preemption.stop(f"{stage.name} saved at step {step}")
    except NotFiniteError as error:
        raise _diverged(stage, str(error), error.step, checkpoints) from None
    else:
        checkpoints.wait()
        return best.state
    finally:
        if line := profiler.close():
            log.say(line)
        log.close()


class _Validation:
    """Evaluation on the validation split, with logged metrics and one warning per fault while it lasts."""

    def __init__(
        self,
        stage: Stage,
        evaluate: Callable[..., Any],
        split: AnySplit,
        batch_size: int,
        checkpoints: Checkpoints,
        log: RunLog,
    ) -> None:
        self._stage, self._checkpoints, self._log = stage, checkpoints, log
        self._evaluate = partial(evaluate, split=split, batch_size=batch_size)
        self._warnings = Warnings(log)

    def __call__(self, state: TrainState, step: int) -> dict[str, float]:
        """Return the metrics; raise UserError if the objective is not finite."""
        stage, log = self._stage, self._log
        sums = self._evaluate(state)
        metrics = stage.summarise(sums)
        # Parameters may be spoilt by the very step whose loss was still finite.
        if not np.isfinite(metrics[stage.objective]):
            what = f"the validation {stage.objective} is {metrics[stage.objective]}"
            raise _diverged(stage, what, step, self._checkpoints)
        log.record("validation", step, metrics)
        log.say(f"validation at step {step}: {stage.in_words(metrics)}")
        stage.show(log, step, state.eval_params, state.model_state, sums)
        self._warnings.say(stage.warnings(sums))
        return metrics


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
