"""The memory that a run needs at least, checked before anything is allocated."""

import os
import warnings
from collections.abc import Collection
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from hvq_jax.devices.parallel import Parallel
from hvq_jax.errors import UserError
from hvq_jax.quantizers import options_in_use
from hvq_jax.runs.options import RunOptions
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.stage import Stage

_STAND_IN_LATENTS = 8  # rows and columns of latents where the size of the images is not known yet


def check_memory(options: RunOptions, parallel: Parallel, stages: Collection[str]) -> None:
    """Raise UserError if the state of one of `stages`, or a batch of images, is larger than the memory of a device.

    The models are only traced, so this takes a fraction of a second whatever their size. Activations are not counted.
    """
    factor = options.network.factor
    height, width = options.data.sides or (factor * _STAND_IN_LATENTS,) * 2
    shape = (height, width, options.data.channels or 1)
    images = options.autoencoder.batch_size // parallel.num_devices
    used = options_in_use(options.codebook)
    number = next((f"codebook.{name}" for name in ("levels", "bits") if name in used), "latent.num_codes")
    if not options.prior.latents:
        what = f"a batch of {images} images of {height}×{width}"
        _require(what, 4 * images * int(np.prod(shape, dtype=object)), "data.image_size or autoencoder.batch_size")
    if "autoencoder" in stages:
        state = trace(AutoencoderStage(options.autoencoder_model(shape), np.zeros((0, *shape), np.uint8)))
        smaller = f"{number}, latent.dim or network.width"
        needed = state_bytes(*state, options.autoencoder, options.frozen)
        _require("the training state of the autoencoder", needed, smaller)
    if "prior" not in stages:
        return
    grid = (_STAND_IN_LATENTS, _STAND_IN_LATENTS)
    state = trace(PriorStage(options.prior_model(num_classes=1, grid=grid), grid))
    smaller = f"{number}, prior.width, prior.head_width or prior.num_components"
    _require("the training state of the prior", state_bytes(*state, options.prior), smaller)


@lru_cache(maxsize=8)
def trace(stage: Stage) -> tuple[Any, Any]:
    """Return the parameters of a stage and the rest of its model's state, as shapes and dtypes."""
    with warnings.catch_warnings(action="ignore"):  # of sizes that will be refused
        traced: tuple[Any, Any] = jax.eval_shape(stage.init, jax.random.key(0))
    return traced


def state_bytes(params: Any, model_state: Any, options: FitOptions, frozen: Collection[str] = ()) -> int:
    """Return the memory of training a stage, without activations and batches.

    It holds the parameters and, of those that are trained, the gradients and the two moments of Adam.
    """
    trained = {part: params[part] for part in params if part not in frozen} if frozen else params
    averaged = tree_bytes(params) if options.average_decay else 0
    return tree_bytes(params) + 3 * tree_bytes(trained) + averaged + tree_bytes(model_state)


def tree_bytes(tree: Any) -> int:
    """Return the memory of the arrays in `tree`, or of arrays of these shapes and dtypes."""
    return sum(int(np.prod(leaf.shape, dtype=object)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _require(what: str, needed: int, options: str) -> None:
    available = device_bytes()
    if needed > available:
        raise UserError(
            f"{what} takes at least {needed / 2**30:,.1f} GiB, and a device has {available / 2**30:,.1f} GiB: choose a "
            f"smaller {options}"
        )


def device_bytes() -> int:
    """Return the memory of a device in bytes; simulated ones share that of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
