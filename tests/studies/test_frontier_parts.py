"""The parts of the frontier: the other order of transmission, the fine-tuned decoder, and the command."""

import argparse
import itertools
import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder
from hvq_jax.data.pipeline import Batch
from hvq_jax.errors import UserError
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.priors.heads import GainHead
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.tokens import Tables
from hvq_jax.quantizers import LatentOptions
from hvq_jax.training.state import create_state
from studies.frontier import __main__ as command, results
from studies.frontier.cells import SMALL, trainings
from studies.frontier.codes_first import ContinuousGivenCodes
from studies.frontier.decoder import DecoderStage
from studies.train import Limit

K, G = 3, 2


@pytest.fixture(scope="module")
def given_codes():
    """A prior of lengths given all codes of latents 1×3, with random parameters: tokens `[B, 1, 3, 2]` -> nats."""
    sizes = {"width": 4, "head_width": 4}
    model = ContinuousGivenCodes(K, PixelCNN(width=4, num_layers=2), (GainHead(K, G, 1, **sizes),), head_width=4)
    has_length = jnp.array([[True, True, False]])
    tokens = jnp.zeros((1, 1, 3, 2), int)
    params = jax.jit(model.init)(jax.random.key(0), tokens, None, has_length)
    # The output layer of a head starts at zero.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = jax.tree.unflatten(tree, [jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)])
    return jax.jit(lambda tokens: model.apply(params, tokens, None, has_length))


def latents(codes, bins):
    return jnp.stack([jnp.array(codes), jnp.array(bins)], axis=-1)[:, None]


def test_lengths_given_all_codes_are_a_distribution(given_codes):
    """Of every combination of codes, where the last code has no length."""
    every = list(itertools.product(range(G), repeat=2))
    nats = given_codes(latents([[0, 1, 2]] * 4, [[*bins, 0] for bins in every]))
    assert jnp.exp(-nats.continuous.sum(axis=(1, 2))).sum() == pytest.approx(1, abs=1e-5)
    assert not nats.codes.any()
    assert not nats.continuous[:, 0, 2].any()


def test_a_length_sees_all_codes_and_the_lengths_before_it(given_codes):
    first, other_code, other_length = (
        given_codes(latents([codes], [bins])).continuous[0, 0]
        for codes, bins in (([0, 1, 0], [0, 1, 1]), ([0, 1, 1], [0, 1, 1]), ([0, 1, 0], [0, 0, 1]))
    )
    assert first[0] != other_code[0]
    assert first[1] != other_code[1]
    assert first[0] == other_length[0]
    assert first[2] != other_length[2]


@pytest.fixture(scope="module")
def stage():
    latent = LatentOptions(mode="projected", num_codes=4, dim=2, num_frequent=0)
    model = Autoencoder((8, 8, 1), NetworkOptions(num_blocks=0), latent)
    variables = jax.jit(partial(autoencoder.init, model))(jax.random.key(0))
    centroids = jnp.arange(1.0, 9.0).reshape(4, 2)
    return DecoderStage(model, variables, Tables(jnp.ones(4, bool), jnp.zeros(4, bool), centroids))


def test_the_decoder_alone_is_fine_tuned_on_what_is_transmitted(stage):
    params, state = stage.init(jax.random.key(1))
    tokens = np.zeros((3, 2, 2, 2), np.int16)
    images = np.full((3, 8, 8, 1), 255, np.uint8)
    batch = Batch((tokens, images), np.zeros(3, np.int32), np.array([True, True, False]))
    (loss, (new_state, _)), gradient = jax.jit(jax.value_and_grad(partial(stage.loss, axis_name=None), has_aux=True))(
        params, state, batch, jax.random.key(2)
    )
    assert math.isfinite(loss)
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient))
    assert stage.evaluate(params, state, batch)["mse"].count == 2
    # Another bin is another input of the decoder.
    other = Batch((tokens + np.array([0, 1], np.int16), images), batch.labels, batch.mask)
    assert stage.evaluate(params, state, batch)["mse"].total != stage.evaluate(params, state, other)["mse"].total
    whole = stage.variables
    optimizer = SMALL.fine_tuning.make_optimizer(1)
    trained = create_state(whole.params, whole.state, optimizer, average_decay=0.0)
    tuned = create_state(jax.tree.map(lambda x: x + 1, params), new_state, optimizer, average_decay=0.0)
    put = stage.put_into(trained, tuned)
    for name in ("encoder", "quantizer"):
        jax.tree.map(np.testing.assert_array_equal, put.params[name], whole.params[name])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + 1), put.params["decoder"], params)
    with pytest.raises(ValueError, match="num_parts=2"):
        stage.loss(params, state, batch, jax.random.key(2), None, num_parts=2)


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(command.Machine, "found", lambda jobs: command.Machine("cpu", jobs, {}))
    return argparse.Namespace(
        size="small",
        results=tmp_path / "results",
        runs=tmp_path / "runs",
        manual_dir=".",
        jobs=1,
        only="small-vq-K_64-",
    )


def finish(name, folder):
    (training,) = (each for each in trainings() if each.name == name)
    for path in (results.find_training(training, folder), results.find_point(training, training.points[0], folder)):
        path.write_text(json.dumps({}))


def test_the_command_makes_what_is_missing_and_names_what_fails(options, monkeypatch, capsys):
    started = []

    def fake(arguments, log, machine, left, grace):
        name = arguments[3]
        started.append(name)
        if name.endswith("seed_1"):
            log.write("error: no memory\n")
            return 1
        finish(name, options.results)
        return 0

    monkeypatch.setattr(command, "run_until", fake)
    options.results.mkdir()
    finish("small-vq-K_64-seed_0", options.results)
    with pytest.raises(UserError, match="small-vq-K_64-seed_1"):
        command.make_all(options, Limit())
    assert started == ["small-vq-K_64-seed_1", "small-vq-K_64-seed_2"]
    said = capsys.readouterr().out
    assert "small-vq-K_64-seed_1: error: no memory" in said
    assert "2 of 3 trainings are made" in said
    command.make_all(argparse.Namespace(**{**vars(options), "only": "small-vq-K_64-seed_2"}), Limit())
    assert len(started) == 2


def test_nothing_is_started_without_time(options, monkeypatch):
    monkeypatch.setattr(command, "run_until", pytest.fail)
    command.make_all(options, Limit(10))


@pytest.mark.parametrize("argument", ["--jobs=0", "--manual_dir=missing"])
def test_bad_arguments_are_named(argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=argument):
        command.main([argument])
    assert not list(Path(tmp_path).iterdir())
