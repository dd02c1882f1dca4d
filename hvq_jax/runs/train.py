"""Training from Python: options and arrays in, an open run out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hvq_jax.data.given import Given
from hvq_jax.runs.loaded import LoadedRun, load
from hvq_jax.runs.open import run_experiment
from hvq_jax.runs.options import RunOptions
from hvq_jax.training.callbacks import Callback


def train(
    config: Mapping[str, Any] | RunOptions,
    workdir: str | Path,
    data: Given | None = None,
    *,
    callbacks: Iterable[Callback | Any] = (),
    quiet: bool = False,
) -> LoadedRun:
    """Train a run, or resume it, and open it.

        run = hvq.train(hvq.RunOptions(), "runs/mine", data=(images, labels))
        run.sample(3, 8).images

    Args:
        config: the options, as they are or as nested dictionaries (a ConfigDict is one).
        workdir: the folder of the run.
        data: `(images, labels)`; images alone; or arrays by name, `train_images`, `train_labels`, `val_images`, …, as
            in an .npz: see `given_dataset`. A run on arrays is resumed with the same arrays. None: the data set that
            the config names.
        callbacks: as for `run_experiment`.
        quiet: print warnings only, and show no progress.

    Raises:
        UserError: as `run_experiment`, or for arrays that cannot be used.
        Preempted: as `run_experiment`.
    """
    run_experiment(config, str(workdir), callbacks=callbacks, data=data, quiet=quiet)
    return load(workdir)
