"""The memory that a run needs at least, checked before anything is allocated."""

import os
import warnings
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from hvq_jax.devices.parallel import Parallel
from hvq_jax.errors import UserError
from hvq_jax.progress import num_bytes_in_words
from hvq_jax.quantizers import options_in_use
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.run import Run
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.checkpoint import newest_step
from hvq_jax.training.loop import checkpoint_folder
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import abstract_state, abstract_variables
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import trained_part

# The options of the sizes of a stage's model, besides the number of codes.
_SIZES = {
    "autoencoder": "latent.dim or network.width",
    "prior": "prior.width, prior.head_width or prior.num_components",
}
_STAND_IN_LATENTS = 8  # rows and columns of latents where the size of the images is not known yet


def check_memory(options: RunOptions, parallel: Parallel, stages: Collection[str]) -> None:
    """Raise UserError if the state of one of `stages`, or a batch of images, is larger than the memory of a device.

    This is before the data are read: sizes that follow from them have stand-ins. The models are only traced, so it
    takes a fraction of a second whatever their size. Activations are not counted.
    """
    factor = options.network.factor
    height, width = options.data.sides or (factor * _STAND_IN_LATENTS,) * 2
    shape = (height, width, options.data.channels or 1)
    images = options.autoencoder.batch_size // parallel.num_devices
    if not options.prior.latents:
        what = f"a batch of {images} images of {height}×{width}"
        needed = 4 * images * int(np.prod(shape, dtype=object))
        _require(what, needed, "choose a smaller data.image_size or autoencoder.batch_size")
    if "autoencoder" in stages:
        model, none = options.autoencoder_model(shape), np.zeros((0, *shape), np.uint8)
        _check_state(AutoencoderStage(model, none, options.frozen), options, _smaller("autoencoder", options))
    if "prior" in stages:
        grid = (_STAND_IN_LATENTS, _STAND_IN_LATENTS)
        prior = PriorStage(options.prior_model(num_classes=1, grid=grid), grid)
        _check_state(prior, options, _smaller("prior", options))


def check_states(run: Run) -> None:
    """Raise UserError if the state of a stage with steps left is larger than the memory of a device.

    A stage that is resumed may have been trained on a larger one.
    """
    for name in run.options.stages:
        stage = run.blank_stage(name)
        if run.steps_left(stage):
            resumed = newest_step(checkpoint_folder(stage, run.workdir)) is not None
            advice = "resume the run on a larger one" if resumed else _smaller(name, run.options)
            _check_state(stage, run.options, advice)


def _check_state(stage: Stage, options: RunOptions, advice: str) -> None:
    _require(f"the training state of the {stage.name}", state_bytes(stage, getattr(options, stage.name)), advice)


def _smaller(name: str, options: RunOptions) -> str:
    """Return the advice to choose smaller sizes of the model of a stage, with the names of their options."""
    used = options_in_use(options.codebook)
    number = next((f"codebook.{option}" for option in ("levels", "bits") if option in used), "latent.num_codes")
    return f"choose a smaller {number}, {_SIZES[name]}"


def trace(stage: Stage) -> tuple[Any, Any]:
    """Return the parameters of a stage and the rest of its model's state, as shapes and dtypes."""
    with warnings.catch_warnings(action="ignore"):  # of sizes that will be refused
        return abstract_variables(stage)


def state_bytes(stage: Stage, options: FitOptions) -> int:
    """Return the memory of the training state of a stage, and of the gradients of the parameters that are trained."""
    with warnings.catch_warnings(action="ignore"):  # of sizes that will be refused
        state = abstract_state(stage, options)
    return tree_bytes((state, trained_part(state.params, stage.frozen)))


def tree_bytes(tree: Any) -> int:
    """Return the memory of the arrays in `tree`, or of arrays of these shapes and dtypes."""
    return sum(int(np.prod(leaf.shape, dtype=object)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _require(what: str, needed: int, advice: str) -> None:
    available = device_bytes()
    if needed > available:
        needs, has = num_bytes_in_words(needed), num_bytes_in_words(available)
        raise UserError(f"{what} takes at least {needs}, and a device has {has}: {advice}")


def device_bytes() -> int:
    """Return the memory of a device in bytes; simulated ones share that of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
