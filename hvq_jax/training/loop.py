"""The one training loop, shared by the autoencoder and the prior."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import AnySplit
from hvq_jax.data.pipeline import Batch, eval_batches, steps_per_epoch, train_batches
from hvq_jax.devices.cluster import is_first, say
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.layout import CHECKPOINTS
from hvq_jax.options import LARGEST_INTEGER, Options, option
from hvq_jax.training.callbacks import Callbacks
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.dispatch import Schedule, compile_dispatch, placed_groups
from hvq_jax.training.given_arrays import GivenArrays
from hvq_jax.training.logging import RunLog, SilentLog, Warnings, in_one_line
from hvq_jax.training.profiling import StepProfiler
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import (
    SCHEDULES,
    TrainState,
    adam,
    continued_rates,
    create_state,
    learning_rates,
    make_optimizer,
    train_step,
)
from hvq_jax.training.step_log import NotFiniteError, StepLog
from hvq_jax.training.writers import Writer

_FIRST_BATCHES = 4  # codes that start from data are made from these: enough vectors for a codebook of usual size


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
        1,
        "training steps per compiled dispatch; worth raising where a step is short, ideally to a divisor of every "
        "..._every_steps; on CPU, compiling takes that many times as long",
        low=1,
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
        return make_optimizer(**self.rates(num_steps), clip_norm=self.clip_norm)

    def rates(self, num_steps: int) -> dict[str, Any]:
        """Return the arguments of `learning_rates` over `num_steps` steps."""
        names = ("learning_rate", "schedule", "warmup_steps")
        return {"num_steps": num_steps, **{name: getattr(self, name) for name in names}}


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


def initial_state(stage: Stage, options: FitOptions, num_steps: int, seed: int) -> TrainState:
    """Return the state at step 0, from the run's seed."""
    params, model_state = stage.init(jax.random.key(seed))
    return _state(stage, params, model_state, options, num_steps)


def _state(stage: Stage, params: Any, model_state: Any, options: FitOptions, num_steps: int) -> TrainState:
    """Return the state at step 0 of a stage with these arrays."""
    optimizer = options.make_optimizer(num_steps)
    return create_state(params, model_state, optimizer, average_decay=options.average_decay, frozen=stage.frozen)


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
    parallel, num_steps = run.parallel, num_training_steps(options, train)
    state, given = jax.jit(partial(initial_state, stage, options, num_steps, run.seed))(), run.given.get(stage.name)
    if given is not None:
        params, model_state = given.fill(*jax.device_get((state.params, state.model_state)))
        average = None if state.average_params is None else jax.tree.map(np.copy, params)
        state = state.replace(params=params, model_state=model_state, average_params=average)
    state = parallel.replicate(state)
    if not stage.starts_from_data or (given is not None and given.has_codes):
        return state
    key = jax.random.fold_in(jax.random.key(run.seed), 2**32 - 1)  # not that of any step
    num_batches = min(_FIRST_BATCHES, steps_per_epoch(train, options.batch_size))
    num_parts = num_batches * options.accumulate_steps if options.accumulate_steps > 1 else 1

    def start(state: TrainState, batch: Batch) -> TrainState:
        params, model_state = stage.start_from_data(
            state.params, state.model_state, batch, key, parallel.axis_name, num_parts
        )
        return _state(stage, params, model_state, options, num_steps)

    # As one large batch, of which every process has its share.
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
    """Return the total number of training steps; raise ArgumentError if they are more than a step's 32 bits count."""
    num_steps = options.num_steps or options.num_epochs * steps_per_epoch(train, options.batch_size)
    if num_steps > LARGEST_INTEGER:
        raise ArgumentError(f"num_epochs={options.num_epochs}", f"{num_steps} steps: must be at most {LARGEST_INTEGER}")
    return num_steps


def fit(
    stage: Stage,
    train: AnySplit,
    validation: AnySplit,
    *,
    options: FitOptions,
    run: RunContext,
    augmentation: Augmentation | None = None,
    earlier: Sequence[tuple[int, FitOptions]] = (),
) -> TrainState:
    """Train `stage` to its last step, from the last checkpoint if there is one; return the best state (numpy).

    Where the options have changed, `earlier` has those of before, each with the step until which they held. The
    learning rate then goes on as `continued_rates` says.

    Raises UserError, after everything already saved is safe, when the loss stops being finite, replicas differ or a
    checkpoint cannot be written; with the state saved, Preempted when the run is asked to stop, or what a callback
    raised.
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
        best, state = None, checkpoints.restore_latest(abstract)
        if state is not None and state.step >= num_steps:
            say(f"{stage.name}: was trained to its last step, {num_steps}")
        else:
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
            rates = _rates(stage, train, int(state.step), options, earlier)
            with contextlib.closing(batches), run.preemption.deferred():
                best = _train(stage, state, batches, validation, epoch, num_steps, checkpoints, options, run, rates)
        if best is None or best.step != checkpoints.best_step():
            best = checkpoints.restore_best(abstract)
        if (lost := checkpoints.lost_best_step()) is not None:
            say(
                f"{stage.name} warning: the best checkpoint, that of step {lost}, is damaged and was set aside: "
                f"step {best.step} takes its place"
            )
        return best
    finally:
        checkpoints.close()


def _rates(
    stage: Stage, train: AnySplit, step: int, options: FitOptions, earlier: Sequence[tuple[int, FitOptions]]
) -> optax.Schedule:
    """Return the learning rates of all steps; say how they go on where the options change at `step` or later."""
    stretches = [(until, before.rates(num_training_steps(before, train))) for until, before in earlier]
    stretches.append((0, options.rates(num_training_steps(options, train))))
    rates = learning_rates(**stretches[0][1])
    for (until, before), (_, after) in itertools.pairwise(stretches):
        if after == before:
            continue
        rates = continued_rates(rates, until, **after)
        if until >= step:
            warmup = min(after["warmup_steps"], (after["num_steps"] - until) // 2)
            say(
                f"{stage.name}: from step {until} on the learning rate goes from {float(rates(until - 1)):.3g} to "
                f"{after['learning_rate']:.3g} within {warmup} steps, then {after['schedule']} up to step "
                f"{after['num_steps']}"
            )
    return rates


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
    batches: Iterator[Batch],
    validation: AnySplit,
    steps_per_epoch: int,
    num_steps: int,
    checkpoints: Checkpoints,
    options: FitOptions,
    run: RunContext,
    rates: optax.Schedule,
) -> TrainState | None:
    """Take the remaining steps; return the best state among those evaluated here."""
    parallel, best = run.parallel, _Best()
    dispatch = compile_dispatch(_step_function(stage, options, rates, run), parallel)
    start = int(state.step)
    schedule = _schedule(options, steps_per_epoch, num_steps)
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
    groups = placed_groups(batches, schedule, start, options.steps_per_dispatch, parallel)
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


def _step_function(stage: Stage, options: FitOptions, rates: optax.Schedule, run: RunContext) -> Callable[..., Any]:
    """Return `train_step` of this stage: (state, batch) -> (state, report)."""
    return partial(
        train_step,
        loss_function=partial(stage.loss, num_parts=options.accumulate_steps),
        optimizer=adam(rates, options.clip_norm),
        seed=run.seed,
        average_decay=options.average_decay,
        axis_name=run.parallel.axis_name,
        frozen=stage.frozen,
    )


def _schedule(options: FitOptions, steps_per_epoch: int, num_steps: int) -> Schedule:
    return Schedule(
        num_steps=num_steps,
        log_every_steps=options.log_every_steps,
        eval_every_steps=options.eval_every_steps or steps_per_epoch,
        checkpoint_every_steps=options.checkpoint_every_steps,
        check_replicas_every_steps=options.check_replicas_every_steps,
    )


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
        log.say(f"validation at step {step}: {in_one_line(metrics)}")
        stage.show(log, step, state.eval_params, state.model_state, sums)
        self._warnings.say(stage.warnings(sums))
        return metrics


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


@lru_cache(maxsize=4)
def _evaluation(stage: Stage, parallel: Parallel) -> Callable[..., Any]:
    """Return the compiled evaluation of a batch: the same one for the same stage, for all of its splits."""

    def evaluate_batch(state: tuple[Any, Any], batch: Batch) -> Any:
        sums = stage.evaluate(*state, batch)
        return jax.lax.psum(sums, parallel.axis_name) if parallel.axis_name else sums

    return parallel.compile(evaluate_batch)


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
