"""Conversion of the PyTorch reference's checkpoints to a run that `train.py` evaluates and `sample.py` draws from."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hvq_jax.autoencoder import ModelState
from hvq_jax.data.datasets import AnySplit
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import UserError
from hvq_jax.files import full_path
from hvq_jax.latents import Z_E, find_latent
from hvq_jax.layout import CHECKPOINTS
from hvq_jax.quantizers.bottleneck import QuantizerState
from hvq_jax.runs.image_run import ImageRun
from hvq_jax.runs.open import open_run
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.torch_reference.state_dict import read_state_dict
from hvq_jax.torch_reference.weights import autoencoder_from_torch, pixelcnn_from_torch
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.loop import checkpoint_folder
from hvq_jax.training.programs import initial_state
from hvq_jax.training.stage import Stage


def convert(config: ConfigDict, workdir: str, *, autoencoder: str, prior: str | None = None) -> None:
    """Write the autoencoder, and the PixelCNN if given, as trained checkpoints of a new run in `workdir`.

    Sizes are taken from the arrays; the rest from `config`, which should be `configs/reference.py`. Raises UserError
    if the arrays are not the reference's or do not fit the data set.
    """
    if (full_path(workdir) / CHECKPOINTS).exists():
        raise UserError(f"--workdir={workdir} already holds a run: choose another folder")
    if prior is not None and find_latent(config.latent.mode).uses(Z_E):
        raise UserError(
            f"--prior draws codes only, and --config.latent.mode={config.latent.mode} needs residuals too: leave it out"
        )
    variables = _from_torch("autoencoder", autoencoder, autoencoder_from_torch)
    prior_params = None if prior is None else _from_torch("prior", prior, pixelcnn_from_torch)
    with config.unlocked():
        config.latent.num_codes, config.latent.dim = variables["params"]["quantizer"]["codes"].shape
        config.latent.num_frequent = min(config.latent.num_frequent, config.latent.num_codes)
        config.codebook.update(learning="gradient", init="uniform")
        config.network.skip = "rectified"
        config.autoencoder.num_steps = 1  # taken: there is nothing left to train
        if prior_params is None:
            config.stage = "autoencoder"
        else:
            config.prior.num_steps = 1
            _describe_prior(config, prior_params["params"])
    with open_run(config, workdir, Preemption()) as run:
        assert isinstance(run, ImageRun)
        quantizer = QuantizerState(jax.numpy.zeros(config.latent.num_codes))
        state = ModelState(variables["batch_stats"], quantizer)
        _save(run, run.autoencoder_stage(), variables["params"], state, run.dataset.validation)
        if prior_params is not None:
            stage, latents = run.prior_stage(TrainedRun.load(run.workdir))
            _save(run, stage, prior_params, None, latents.validation)
    print(f"wrote {workdir}: python train.py --workdir={workdir} evaluates it, sample.py uses it")


def _from_torch(
    flag: str, file: str, from_torch: Callable[[Mapping[str, np.ndarray]], dict[str, Any]]
) -> dict[str, Any]:
    """Return the variables that `from_torch` makes of the state dict in `file`; name the file in its errors."""
    state_dict = read_state_dict(file)
    try:
        return from_torch(state_dict)
    except UserError as error:
        raise UserError(f"--{flag}={file}: {error}") from None


def _describe_prior(config: ConfigDict, params: Mapping[str, Any]) -> None:
    layers = params["network"]
    config.prior.name = "pixelcnn"
    config.prior.num_layers = len(layers)
    config.prior.width = params["embedding"]["embedding"].shape[1]
    config.prior.head_width = params["code_head"]["hidden"]["kernel"].shape[1]
    config.prior.conditional = "class_embedding" in layers["layer_0"]
    config.prior.num_bins = 1  # it does not model gains


def _save(run: ImageRun, stage: Stage, params: Any, model_state: Any, validation: AnySplit) -> None:
    options = getattr(run.options, stage.name)
    fresh = jax.jit(partial(initial_state, stage, options, run.options.seed))()
    shapes, expected = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (params, fresh.params))
    if shapes != expected:
        raise UserError(
            f"the {stage.name}'s arrays do not fit {run.data_name}: another number of channels, codes or classes; "
            "choose the data set with --config.data.name=NAME"
        )
    state = fresh.replace(step=jax.numpy.int32(1), params=params, model_state=model_state)
    checkpoints = Checkpoints(checkpoint_folder(stage, run.workdir), objective=stage.objective)
    try:
        checkpoints.save(1, state, run.evaluate(stage, state, validation))
        checkpoints.wait()
    finally:
        checkpoints.close()
