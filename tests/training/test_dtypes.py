"""Under JAX_ENABLE_X64 arrays without a named dtype are 64 bits wide: no state, and nothing drawn, depends on it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.parallel import Parallel
from hvq_jax.priors import make_prior
from hvq_jax.priors.options import PriorOptions
from hvq_jax.priors.sampling import SamplingOptions, sample
from hvq_jax.quantizers import LatentOptions
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import initial_state
from hvq_jax.training.state import train_step
from tests.methods import METHODS
from tests.training.small_fit import small_training, stage_of

OPTIONS = FitOptions(average_decay=0.9, clip_norm=1.0)
PRIORS = {
    "pixelcnn, codes": ("vq", PriorOptions(name="pixelcnn")),
    "transformer, gains": ("combined", PriorOptions(name="transformer", dropout=0.1)),
    "pixelcnn, residuals": ("frequency", PriorOptions(name="pixelcnn")),
}


def autoencoder_stage(method):
    stage = AutoencoderStage(METHODS[method], np.zeros((1, 8, 8, 1), np.uint8))
    return stage, Batch(np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32), np.ones(4, bool))


def prior_stage(name):
    mode, options = PRIORS[name]
    latent_options = LatentOptions(mode=mode, num_codes=8, dim=4, num_frequent=4)
    sizes = {"width": 8, "num_layers": 2, "head_width": 8}
    options = PriorOptions(**vars(options) | sizes)
    prior = make_prior(options, latent_options, num_codes=8, num_classes=3, grid=(2, 2))
    stage = PriorStage(prior, (2, 2), 9, np.ones((len(prior.heads), 8), bool), label_dropout=0.1)
    tokens = np.zeros((4, 2, 2, prior.num_channels), np.int16)
    return stage, Batch(tokens, np.zeros(4, np.int32), np.ones(4, bool))


def shapes(tree):
    """Return the dtype and the shape of every leaf by its path."""
    return {jax.tree_util.keystr(path): (leaf.dtype, leaf.shape) for path, leaf in jax.tree.leaves_with_path(tree)}


STAGES = [*((autoencoder_stage, name) for name in METHODS), *((prior_stage, name) for name in PRIORS)]


@pytest.mark.parametrize(("make", "name"), STAGES, ids=[name for _, name in STAGES])
def test_a_state_is_the_same_at_the_start_and_after_a_step(make, name):
    stage, batch = make(name)
    create = partial(initial_state, stage, OPTIONS, 0)
    expected = shapes(jax.eval_shape(create))
    assert not any(dtype in (np.float64, np.int64) for dtype, _ in expected.values())
    optimizer = OPTIONS.make_optimizer(10)
    step = partial(train_step, loss_function=stage.loss, optimizer=optimizer, seed=0, average_decay=0.9)
    with jax.enable_x64(True):
        state = jax.eval_shape(create)
        assert shapes(state) == expected
        assert shapes(jax.eval_shape(step, state, batch)[0]) == expected
        start = partial(stage.start_from_data, axis_name=None)
        started = jax.eval_shape(start, state.params, state.model_state, batch, jax.random.key(0))
    assert shapes(started) == shapes((state.params, state.model_state))


@pytest.mark.parametrize("name", PRIORS)
def test_a_draw_is_the_same(name):
    stage, _ = prior_stage(name)
    options = SamplingOptions(
        temperature=0.5, top_p=0.9, guidance=0.5, continuous_temperature=0.5 if stage.model.heads else 1
    )

    def draw():
        params, _ = stage.init(jax.random.key(0))
        labels, keys = jnp.zeros(5, jnp.int32), jax.random.split(jax.random.key(1), 5)
        return sample(stage.model, params, labels, keys, 2, 2, has_continuous=stage.has_continuous, options=options)

    expected = shapes(jax.eval_shape(draw))
    with jax.enable_x64(True):
        assert shapes(jax.eval_shape(draw)) == expected


def test_steps_are_taken():
    expected, _ = small_training(stage_of("combined"), Parallel("jit"))
    with jax.enable_x64(True):
        steps, state = small_training(stage_of("combined"), Parallel("jit"))
    assert not any(leaf.dtype in (np.float64, np.int64) for leaf in jax.tree.leaves(state))
    assert steps[-1]["reconstruction"] == pytest.approx(expected[-1]["reconstruction"], rel=1e-3)
