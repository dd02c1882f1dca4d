"""Opening a run: check everything that can be checked, read the data, and lock the workdir."""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from hvq_jax.data.datasets import GIVEN, AnySplit, ImageDataset, open_dataset
from hvq_jax.data.given import Given, given_dataset
from hvq_jax.devices.cluster import agreed, check_agreement, is_first, say
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import full_path, remove_unfinished, write_json
from hvq_jax.layout import CHECKPOINTS, CONFIG, DATASET, WHOLE
from hvq_jax.progress import quietly
from hvq_jax.runs.history import Change, in_words, read_history, with_changes, write_history
from hvq_jax.runs.image_run import ImageRun
from hvq_jax.runs.init_from import Start, start_from
from hvq_jax.runs.latent_run import LatentRun
from hvq_jax.runs.memory import check_memory, check_states
from hvq_jax.runs.options import CHANGEABLE, KEYS, RECORDED, RunOptions, from_dict, to_dict
from hvq_jax.runs.overview import overview
from hvq_jax.runs.own_latents import OwnLatents, own_latents
from hvq_jax.runs.run import Run
from hvq_jax.runs.sizes import with_batches_of_at_most, with_sizes, with_sizes_of
from hvq_jax.runs.summary import Summary, read_summary
from hvq_jax.runs.threads import among_others
from hvq_jax.runs.workdir import (
    check_config,
    check_format,
    flatten,
    load_config,
    locked,
    read_description,
    write_description,
    write_format,
)
from hvq_jax.runs.written import written
from hvq_jax.training.callbacks import Callback, Callbacks
from hvq_jax.training.checkpoint import newest_step
from hvq_jax.training.loop import RunContext, num_training_steps
from hvq_jax.training.options import FitOptions
from hvq_jax.training.writers import check_installed


def run_experiment(
    config: Mapping[str, Any] | RunOptions,
    workdir: str,
    *,
    profile_steps: int = 0,
    callbacks: Iterable[Callback | Any] = (),
    data: Given | None = None,
    quiet: bool = False,
) -> Summary:
    """Run the stages named in `config.stage`, resuming from what `workdir` already holds; return its `summary.json`.

    In a cluster every process calls this, and the first one writes. It may be called in any thread, and in several at
    once if each run uses one device, as with `parallel=jit`; only in the main thread does it listen for signals.

    Args:
        config: the options, as they are or as nested dictionaries (a ConfigDict is one).
        workdir: the folder of the run.
        profile_steps: training steps of each stage to trace into the workdir; 0: none.
        callbacks: objects with some of the methods of `Callback`, called in this order.
        data: images and labels, as for `given_dataset`; None: the data set that the config names.
        quiet: print warnings only, and show no progress.

    Raises:
        UserError: the config does not fit the workdir, the data or the devices; nothing in the workdir has changed.
        Preempted: after SIGTERM or ctrl-C, with what was trained saved.
        Exception: what a callback raised, with what was trained saved.
    """
    preemption = Preemption()
    told = Callbacks(callbacks, fail=preemption.fail)
    with (
        quietly(quiet),
        preemption.noticed(),
        open_run(config, workdir, preemption, profile_steps, told, data) as opened,
        contextlib.ExitStack() as held,
    ):
        with agreed(), flags_named():
            run = held.enter_context(written(opened))
        run.run()
        summary = read_summary(run.workdir)
        if is_first():
            told.tell("on_end", summary)
        preemption.raise_failure()
    return summary


# Options that may differ between the processes of a cluster: what they give is compared instead.
_OWN_TO_PROCESS = ("data.data_dir", "data.manual_dir", "data.memory_gib", "prior.latents")
_PACKAGE = Path(__file__).parents[1]


@contextlib.contextmanager
def open_run(
    config: Mapping[str, Any] | RunOptions,
    workdir: str,
    preemption: Preemption,
    profile_steps: int = 0,
    callbacks: Callbacks | None = None,
    data: Given | None = None,
    *,
    writes: bool = True,
) -> Iterator[Run]:
    """Yield the run of `config`, with `workdir` locked during the block; raise UserError for any mistake.

    With `prior.latents` it is a `LatentRun`, without an autoencoder. Where it `writes` nothing, the folder is neither
    made nor locked.
    """
    with contextlib.ExitStack() as held:
        with agreed(), flags_named():
            options = config if isinstance(config, RunOptions) else from_dict(config)
            if data is not None:
                options = dataclasses.replace(options, data=dataclasses.replace(options.data, name=GIVEN))
            parallel = Parallel(options.parallel)
            parallel.check()
            for stage in options.stages:
                fit_options = getattr(options, stage)
                parallel.check_batch_size(
                    f"{stage}.batch_size", fit_options.batch_size, num_parts=fit_options.accumulate_steps
                )
            held.enter_context(among_others(Path(workdir).name, parallel, profiled=profile_steps > 0))
            check_memory(options, parallel, _to_initialise(options, full_path(workdir)))
            if is_first():
                check_installed(options.logging)
        check_agreement(_shared(options))
        with agreed(), flags_named():
            folder = held.enter_context(locked(workdir)) if writes and is_first() else full_path(workdir)
            options = with_sizes_of(folder, options)
            dataset, description = _open_data(options, folder, data)
            fitted = with_batches_of_at_most(len(dataset.train), options, options.stages, parallel.num_devices)
            for stage in options.stages:
                with flags_named(f"{stage}."):
                    _check_length(getattr(fitted, stage), dataset.train, newest_step(folder / CHECKPOINTS / stage))
            options_to_store = to_dict(with_sizes(options, dataset.carved_sizes))
            known = read_history(folder)
            history = _continued(folder, known, options_to_store)
            context = RunContext(folder, options.seed, parallel, preemption, profile_steps, callbacks or Callbacks())
            run: Run
            if isinstance(dataset, OwnLatents):
                run = LatentRun(fitted, context, dataset)
            else:
                run = ImageRun(fitted, context, dataset, options.autoencoder_model(dataset.image_shape))
            check_states(run)
        check_agreement(description)
        with flags_named():
            start = _start(run, tuple(dataset.class_names))
        with agreed():
            if writes and is_first():
                remove_unfinished(folder / name for name in WHOLE)
                write_format(folder)
                write_history(folder, history)  # before the config, so that a crash loses no change
                write_json(folder / CONFIG, options_to_store)
                write_description(folder, description)
        for line in (*overview(run), *in_words(history, known), *start.lines):
            say(line)
        for stage in options.stages:
            if (size := getattr(fitted, stage).batch_size) != getattr(options, stage).batch_size:
                say(f"{stage}: batches of {size}, since there are only {len(dataset.train)} to train on")
        yield dataclasses.replace(run, context=dataclasses.replace(run.context, given=start.given))


@contextlib.contextmanager
def flags_named(prefix: str = "") -> Iterator[None]:
    """Name flags, "--config.latent.mode", instead of options, "latent.mode", in errors raised in the block.

    `prefix` is the section of the options that the block uses without one, such as "data.".
    """
    try:
        yield
    except ArgumentError as error:
        named = error.within(prefix) if prefix + error.name in KEYS else error
        raise UserError(with_flags(str(named))) from None
    except UserError as error:
        raise UserError(with_flags(str(error))) from None


_SECTIONED = "|".join(re.escape(key) for key in sorted(KEYS, key=len, reverse=True) if "." in key)
_TOP_LEVEL = "|".join(f"{key}(?==)" for key in KEYS if "." not in key)
_OPTION = re.compile(rf"(?<![\w./-])({_SECTIONED}|{_TOP_LEVEL})\b")


def with_flags(text: str) -> str:
    """Replace each option named in `text` by its flag.

    >>> with_flags("must divide latent.dim=64")
    'must divide --config.latent.dim=64'
    """
    return _OPTION.sub(r"--config.\1", text)


def _shared(options: RunOptions) -> dict[str, Any]:
    """Return what has to be the same on all processes: options other than paths and memory, code, and devices."""
    values = {f"--config.{key}": v for key, v in flatten(to_dict(options)).items() if key not in _OWN_TO_PROCESS}
    code = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        code.update(file.relative_to(_PACKAGE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return {
        **values,
        "the code of hvq_jax": code.hexdigest()[:12],
        "jax": jax.__version__,
        "the number of devices": jax.local_device_count(),
        "the kind of devices": jax.local_devices()[0].device_kind,
    }


def _to_initialise(options: RunOptions, folder: Path) -> list[str]:
    """Return the stages that start anew; the sizes of the others are known when their run is opened."""
    return [stage for stage in options.stages if newest_step(folder / CHECKPOINTS / stage) is None]


def _open_data(
    options: RunOptions, folder: Path, data: Given | None
) -> tuple[ImageDataset | OwnLatents, dict[str, Any]]:
    """Return the data set and its description, after checking that `folder` was trained on it with these options."""
    free: tuple[str, ...] = (*CHANGEABLE, *RECORDED)
    if not (folder / CHECKPOINTS / "prior").exists():
        free = (*free, "prior", "init_from")  # nothing depends on them yet, and an autoencoder has started
    check_format(folder)
    trained = (folder / CHECKPOINTS).exists()
    if trained:
        check_config(folder, to_dict(options), free=free)
    trained_on = read_description(folder) if trained else None
    read_summary(folder)  # rather now than after hours of training
    dataset: ImageDataset | OwnLatents
    if options.prior.latents:
        dataset = own_latents(options.prior.latents, options.latent, options.codebook, options.prior, options.data)
    else:
        with flags_named("data."):
            dataset = open_dataset(options.data) if data is None else given_dataset(data, options.data)
    description = _describe(options, dataset)
    if trained_on not in (None, description):
        name = options.prior.latents or options.data.name
        raise UserError(
            f"{name} is not the data set that {folder} was trained on (see {folder / DATASET}): "
            "use that one or another --workdir"
        )
    return dataset, description


def _check_length(options: FitOptions, train: AnySplit, newest: int | None) -> None:
    """Raise ArgumentError for more steps than can be counted, or fewer than the `newest` that has been taken."""
    num_steps = num_training_steps(options, train)
    if newest is not None and num_steps < newest:
        name = "num_steps" if options.num_steps else "num_epochs"
        raise ArgumentError(
            f"{name}={getattr(options, name)}",
            f"the run has taken {newest} steps, more than these {num_steps}: choose as many or more, or drop the "
            "option and --config, to go on as it is",
        )


def _continued(folder: Path, history: Sequence[Change], options: Mapping[str, Any]) -> list[Change]:
    """Return the history of the run in `folder`, if there is one, when it goes on with `options`."""
    newest = {stage: newest_step(folder / CHECKPOINTS / stage) for stage in ("autoencoder", "prior")}
    steps = {stage: step for stage, step in newest.items() if step is not None}
    return with_changes(history, flatten(load_config(folder)), flatten(dict(options)), steps) if steps else []


def _start(run: Run, class_names: tuple[str, ...]) -> Start:
    """Return what the stages of `run` that have not been trained yet start from."""
    names = [name for name in run.options.stages if newest_step(run.workdir / CHECKPOINTS / name) is None]
    if run.options.init_from.run is None or not names:
        return Start({}, ())
    return start_from(run.options, [run.blank_stage(name) for name in names], class_names)


def _describe(options: RunOptions, dataset: ImageDataset | OwnLatents) -> dict[str, Any]:
    """Return the data as `dataset.json` describes it; lists in place of tuples, as in JSON."""
    if isinstance(dataset, OwnLatents):
        of_kind = {"name": "latents", "latent_shape": list(dataset.latent_shape)}
    else:
        of_kind = {"name": options.data.name, "image_shape": list(dataset.image_shape)}
    return {
        **of_kind,
        "class_names": list(dataset.class_names),
        "fingerprint": dataset.fingerprint(),
    }
