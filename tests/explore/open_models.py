"""Runs of tiny models that are in memory, and images for them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

import hvq_jax as hvq
from hvq_jax.runs.loaded import LoadedRun
from hvq_jax.runs.trained import TrainedRun
from tests.export.models import tiny_model


def opened(kind):
    """A run of a tiny model whose arrays are in memory."""
    model, variables = tiny_model(kind)
    options = hvq.RunOptions(
        latent=model.latent_options, codebook=model.codebook_options, network=hvq.NetworkOptions(num_blocks=0)
    )
    state = SimpleNamespace(eval_params=variables.params, model_state=variables.state)
    return LoadedRun(TrainedRun(Path("run"), options, model.image_shape, None, (), given_autoencoder=state))


def image_of(run):
    return np.random.default_rng(0).integers(0, 256, run.stream.image_shape, np.uint8)
