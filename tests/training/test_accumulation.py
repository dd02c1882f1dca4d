"""Gradient accumulation: a batch in parts is the batch, but for batch normalisation, and takes the memory of a part."""

import dataclasses
from functools import partial
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from hvq_jax import autoencoder, parts
from hvq_jax.autoencoder import Autoencoder
from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import ArgumentError
from hvq_jax.losses import LossOptions
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.priors import make_prior
from hvq_jax.priors.options import PriorOptions
from hvq_jax.quantizers import CodebookOptions, LatentOptions
from hvq_jax.training.loop import RunContext, first_state
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.state import create_state, train_step
from tests.training.small_fit import TRAIN, QuietStage, fit_options

PARTS, SIZE = 4, 128  # 4 x 32 against 128
PATCHES = NetworkOptions(encoder="tests.plugins.patches:Encoder", decoder="tests.plugins.patches:Decoder", width=16)

# With masks by the frequency of the batch, revived codes and moving averages; and with a term that is not linear in it.
MODELS = {
    "moving averages": Autoencoder(
        (16, 8, 1), PATCHES, LatentOptions(mode="combined", num_codes=8, dim=4, num_frequent=4), CodebookOptions()
    ),
    "gradients": Autoencoder(
        (16, 8, 1),
        PATCHES,
        LatentOptions(mode="vq", num_codes=8, dim=4),
        CodebookOptions(learning="gradient", init="uniform"),
        LossOptions(entropy_weight=0.5),
    ),
}


def images(count, shape):
    random = np.random.default_rng(0)
    return Batch(random.integers(0, 256, (count, *shape), np.uint8), np.zeros(count, np.int32), np.ones(count, bool))


def prior_stage():
    latent_options, options = LatentOptions(mode="vq", num_codes=8, dim=4), PriorOptions(width=8, num_layers=1)
    return PriorStage(make_prior(options, latent_options, num_codes=8, num_classes=3, grid=(2, 2)), (2, 2))


def tokens():
    random = np.random.default_rng(0)
    codes, labels = random.integers(0, 8, (SIZE, 2, 2, 1), np.int32), random.integers(0, 3, SIZE, np.int32)
    return Batch(codes, labels, np.ones(SIZE, bool))


def steps(stage, batch, form, num_parts, count=2):
    """Return the state after a few steps, and the report of the last one."""
    parallel, options = Parallel(form), FitOptions(learning_rate=1e-3)
    optimizer = options.make_optimizer(10)
    state = parallel.replicate(
        jax.jit(lambda: create_state(*stage.init(jax.random.key(0)), optimizer, average_decay=0.0))()
    )
    loss = partial(stage.loss, num_parts=num_parts)
    step = partial(train_step, loss_function=loss, optimizer=optimizer, seed=0, axis_name=parallel.axis_name)
    step = parallel.compile(step)
    for _ in range(count):
        state, report = step(state, parallel.shard(batch))
    return jax.device_get((state, report))


@pytest.mark.parametrize("name", MODELS)
def test_four_parts_of_32_on_four_devices_are_a_batch_of_128_on_one(name):
    stage, batch = QuietStage(MODELS[name], np.zeros((1, 16, 8, 1), np.uint8)), images(SIZE, (16, 8, 1))
    (whole, report), (cut, of_parts) = steps(stage, batch, "jit", 1), steps(stage, batch, "pmap", PARTS)
    np.testing.assert_array_equal(report.metrics.counts, of_parts.metrics.counts)
    assert report.metrics.counts.sum() == SIZE * 2
    chex.assert_trees_all_close(report, of_parts, rtol=1e-4, atol=1e-6)
    # Parameters may differ by what Adam makes of the rounding of a gradient near zero.
    chex.assert_trees_all_close(whole.model_state, cut.model_state, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(whole.params, cut.params, atol=1e-4)


def test_the_prior_learns_the_same_from_parts():
    (whole, report), (cut, of_parts) = (steps(prior_stage(), tokens(), "jit", count) for count in (1, PARTS))
    chex.assert_trees_all_close(report, of_parts, rtol=1e-4)
    chex.assert_trees_all_close(whole.params, cut.params, atol=1e-4)


def test_batch_normalisation_is_that_of_the_parts():
    """The running mean moves by the mean of all images, the running variance by the mean variance within a part."""
    model = dataclasses.replace(MODELS["moving averages"], network=NetworkOptions(num_blocks=0, width=4))
    variables = jax.jit(partial(autoencoder.init, model))(jax.random.key(0))
    encode = jax.jit(partial(autoencoder.encode_training, model), static_argnames="num_parts")
    brightness = np.linspace(-1, 1, 16, dtype=np.float32)[:, None, None, None]
    batch = np.broadcast_to(brightness, (16, 16, 8, 1))  # so parts differ

    def running(images, num_parts=1):
        return encode(variables.params, variables.state, images, num_parts=num_parts)[1]["norm_in"]

    whole, cut = running(batch), running(batch, num_parts=PARTS)
    np.testing.assert_allclose(cut["mean"], whole["mean"], rtol=1e-4, atol=1e-6)
    assert (cut["var"] < whole["var"]).all()
    within = [running(part)["var"] for part in np.split(batch, PARTS)]
    np.testing.assert_allclose(cut["var"], np.mean(within, axis=0), rtol=1e-5)


def test_a_batch_in_parts_takes_the_memory_of_a_part(monkeypatch):
    """As on an accelerator; on CPU the loop is unrolled, and XLA takes parts in another order."""
    monkeypatch.setattr(parts, "unrolls_loops", lambda: False)
    model = dataclasses.replace(MODELS["moving averages"], network=NetworkOptions(num_blocks=0, width=64))
    stage, batch = QuietStage(model, np.zeros((1, 16, 8, 1), np.uint8)), images(SIZE, (16, 8, 1))
    params, state = jax.eval_shape(stage.init, jax.random.key(0))

    def temporary_bytes(num_parts):
        gradient = jax.grad(partial(stage.loss, axis_name=None, num_parts=num_parts), has_aux=True)
        compiled = jax.jit(gradient).lower(params, state, batch, jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(PARTS) < 0.5 * temporary_bytes(1)


def test_codes_start_from_the_same_images_in_parts():
    started = []
    for count in (1, 2):
        options, run = fit_options(accumulate_steps=count), RunContext(Path(), 0, Parallel("jit"), Preemption())
        started.append(first_state(clusters(), TRAIN, options=options, run=run).params["quantizer"])
    chex.assert_trees_all_close(*started, atol=1e-5)
    assert np.ptp(started[0]["codes"]) > 0


def clusters():
    """Return a stage whose codes start from the clusters of the first batches."""
    options = CodebookOptions(learning="gradient", init="kmeans")
    model = Autoencoder((8, 8, 1), PATCHES, LatentOptions(mode="vq", num_codes=8, dim=4), options)
    return QuietStage(model, np.zeros((1, 8, 8, 1), np.uint8))


def test_parts_divide_batches_and_devices_divide_parts():
    with pytest.raises(ArgumentError, match=r"^accumulate_steps=3: must divide batch_size=128$"):
        FitOptions(accumulate_steps=3)
    Parallel("pmap").check_batch_size("batch_size", 32, num_parts=8)
    with pytest.raises(ArgumentError, match=r"batch_size=24: must be a multiple of 4, .* times 4, the number of parts"):
        Parallel("pmap").check_batch_size("batch_size", 24, num_parts=4)
    Parallel("jit").check_batch_size("batch_size", 24, num_parts=4)
