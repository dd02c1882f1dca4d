from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.errors import ArgumentError
from hvq_jax.images import to_float, to_uint8
from hvq_jax.networks import layers
from hvq_jax.networks.encoder_decoder import Decoder, Encoder, ResidualBlock
from hvq_jax.networks.options import FACTORS, SKIPS, NetworkOptions


def test_xavier_uniform_draws_the_values_of_flax():
    key, shape = jax.random.key(0), (3, 3, 8, 16)
    ours, flaxs = layers.xavier_uniform(key, shape), nn.initializers.xavier_uniform()(key, shape)
    np.testing.assert_allclose(ours, flaxs, rtol=1e-5)
    assert ours.shape == shape


@partial(jax.jit, static_argnames=("axis_name", "train"))
def normalise(x, axis_name=None, train=True, stats=None):
    norm = layers.BatchNorm(axis_name)
    collections = {"params": {"scale": jnp.full(3, 2.0), "bias": jnp.ones(3)}}
    collections["batch_stats"] = stats or {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    return norm.apply(collections, x, train=train, mutable=["batch_stats"])


def test_batch_norm_normalises_and_stores_the_unbiased_variance():
    x = 5 + 3 * jax.random.normal(jax.random.key(0), (4, 2, 2, 3))
    y, updates = normalise(x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), np.ones(3), atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), np.full(3, 2.0), rtol=1e-4)
    stats = updates["batch_stats"]
    flat = np.asarray(x).reshape(-1, 3)
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
    evaluated, untouched = normalise(x, train=False, stats=stats)
    by_hand = 2 * (flat - stats["mean"]) / np.sqrt(np.asarray(stats["var"]) + 1e-5) + 1
    np.testing.assert_allclose(evaluated.reshape(-1, 3), by_hand, rtol=1e-4)
    np.testing.assert_array_equal(untouched["batch_stats"]["mean"], stats["mean"])


def test_batch_norm_over_four_devices_is_that_of_the_whole_batch():
    x = 5 + 3 * jax.random.normal(jax.random.key(0), (8, 2, 2, 3))
    whole, stats = normalise(x)
    sharded, sharded_stats = jax.pmap(partial(normalise, axis_name="devices"), "devices")(x.reshape(4, 2, 2, 2, 3))
    # Another order of addition.
    np.testing.assert_allclose(sharded.reshape(x.shape), whole, rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        replicas = np.asarray(sharded_stats["batch_stats"][name])
        np.testing.assert_array_equal(replicas, np.broadcast_to(replicas[0], replicas.shape))
        np.testing.assert_allclose(replicas[0], stats["batch_stats"][name], rtol=1e-5)


def parameters(network, shape):
    variables = jax.eval_shape(partial(network.init, train=True), jax.random.key(0), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(("channels", "side", "expected"), [(1, 28, 4_865_793), (3, 32, 4_882_179)])
def test_parameter_count_of_the_reference(channels, side, expected):
    encoder = parameters(Encoder(256), (1, side, side, channels))
    decoder = parameters(Decoder(256, channels), (1, side // 4, side // 4, 256))
    assert encoder + decoder + 512 * 256 == expected


def test_rectangular_images_and_the_two_skips():
    images = jax.random.uniform(jax.random.key(0), (2, 8, 20, 3), minval=-1)
    outputs = []
    for skip in SKIPS:
        options = NetworkOptions(skip=skip)
        encoder, decoder = Encoder(4, options), Decoder(4, 3, options)
        z_e, _ = jax.jit(partial(encoder.init_with_output, train=True))(jax.random.key(1), images)
        assert z_e.shape == (2, 2, 5, 4)
        x, _ = jax.jit(partial(decoder.init_with_output, train=True))(jax.random.key(2), z_e)
        assert x.shape == images.shape
        assert np.abs(x).max() <= 1
        outputs.append(z_e)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01


def test_so_many_blocks_as_asked_for():
    for number in (0, 1, 3):
        variables = jax.eval_shape(
            partial(Encoder(4, NetworkOptions(num_blocks=number)).init, train=False),
            jax.random.key(0),
            jnp.zeros((1, 8, 8, 1)),
        )
        assert sum(name.startswith("block_") for name in variables["params"]) == number


@pytest.mark.parametrize("width", [None, 4, 6])
@pytest.mark.parametrize("factor", FACTORS)
def test_each_factor_reduces_and_enlarges_the_sides_by_it_at_any_width(factor, width):
    options = NetworkOptions(factor=factor, width=width, num_blocks=1)
    encoder, decoder = Encoder(4, options), Decoder(4, 3, options)
    assert encoder.factor == decoder.factor == factor
    images = jnp.zeros((2, 2 * factor, 3 * factor, 3))
    z_e, encoded = jax.eval_shape(partial(encoder.init_with_output, train=True), jax.random.key(0), images)
    assert z_e.shape == (2, 2, 3, 4)
    x, decoded = jax.eval_shape(partial(decoder.init_with_output, train=True), jax.random.key(0), z_e)
    assert x.shape == images.shape
    widened = width == 6
    assert ("conv_to_latent" in encoded["params"], "conv_from_latent" in decoded["params"]) == (widened, widened)
    assert encoded["params"]["block_0"]["conv_3x3"]["kernel"].shape == (3, 3, width or 4, width or 4)


def test_a_factor_that_is_no_power_of_two_is_refused():
    with pytest.raises(ArgumentError, match="factor=3: choose one of 2, 4, 8, 16"):
        NetworkOptions(factor=3)


def test_the_rectified_skip_hides_negative_inputs():
    block = ResidualBlock(4, "rectified")
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    variables = block.init(jax.random.key(1), x, train=False)
    np.testing.assert_array_equal(
        block.apply(variables, x, train=False), block.apply(variables, nn.relu(x), train=False)
    )


def test_uint8_survives_the_way_to_float_and_back():
    every = jnp.arange(256, dtype=jnp.uint8)
    floats = to_float(every)
    assert floats.min() == -1
    assert floats.max() == 1
    np.testing.assert_array_equal(to_uint8(floats), every)
    np.testing.assert_array_equal(to_uint8(jnp.array([-7.0, 7.0])), [0, 255])
