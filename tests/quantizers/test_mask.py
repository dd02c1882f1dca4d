"""Padding: with a mask, a quantizer learns what it learns from the other positions alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax import losses
from hvq_jax.quantizers import CodebookOptions, LatentOptions, codebook, make_quantizer
from hvq_jax.quantizers.initialisation import codes_from_data
from tests.quantizers.compiled import compiled

K, D, N = 5, 4, 24
MASK = np.arange(N) % 3 > 0  # False where a vector is padding
VECTORS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
PADDED = np.where(MASK[:, None], VECTORS, 99.0).astype(np.float32)
QUANTIZERS = {
    "ema": CodebookOptions(init="uniform", revive_below=0.0),
    "gradient": CodebookOptions(learning="gradient", init="uniform"),
    "diveq": CodebookOptions(learning="diveq", init="uniform", revive_below=0.0),
    "residual": CodebookOptions(family="residual", depth=2, init="uniform", revive_below=0.0),
    "grouped": CodebookOptions(family="grouped", init="uniform", revive_below=0.0),
    "grouped, shared": CodebookOptions(family="grouped", share_codes=True, init="uniform", revive_below=0.0),
    "fsq": CodebookOptions(family="fsq", levels=(3, 3)),
    "residual_fsq": CodebookOptions(family="residual_fsq", levels=(3, 4), depth=2),
    "lfq": CodebookOptions(family="lfq", bits=3),
    "bsq": CodebookOptions(family="bsq", bits=3),
}


def made(options):
    estimator = "diveq" if options.learning == "diveq" else "straight_through"
    return compiled(make_quantizer(LatentOptions(mode="vq", num_codes=K, dim=D, estimator=estimator), options))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_step_on_padded_vectors_is_the_step_on_the_others(name):
    quantizer = made(QUANTIZERS[name])
    arrays, key = quantizer.init(jax.random.key(0)), jax.random.key(1)
    alone, expected = quantizer.step(*arrays, VECTORS[MASK], key, None)
    latent, step = quantizer.step(*arrays, PADDED, key, None, MASK)
    np.testing.assert_array_equal(latent.indices[MASK], alone.indices)
    np.testing.assert_array_equal(step.counts, expected.counts)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), step.state, expected.state)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_batch_of_padding_changes_nothing(name):
    quantizer = made(QUANTIZERS[name])
    params, state = quantizer.init(jax.random.key(0))
    state = state.replace(frequency=state.frequency + 7)
    _, step = quantizer.step(params, state, PADDED, jax.random.key(1), None, np.zeros(N, bool))
    jax.tree.map(np.testing.assert_array_equal, step.state, state)


@pytest.mark.parametrize("count", [3, 16, 40])
def test_rows_are_drawn_where_the_mask_is_true_distinct_where_there_are_enough(count):
    drawn = np.asarray(codebook.draw_vectors(PADDED, count, jax.random.key(0), mask=jnp.asarray(MASK)))
    assert drawn.max() < 99
    assert len(np.unique(drawn, axis=0)) == min(count, MASK.sum())


def test_codes_start_and_revive_from_no_padding_and_alike_on_four_devices():
    quantizer = made(CodebookOptions())  # all codes are dead in the first step
    arrays, key = quantizer.init(jax.random.key(0)), jax.random.key(1)
    _, step = quantizer.step(*arrays, PADDED, key, None, MASK)
    assert np.abs(step.codes).max() < 99
    sharded, masks = PADDED.reshape(4, N // 4, D), MASK.reshape(4, -1)
    each = jax.pmap(lambda z, mask: quantizer.step(*arrays, z, key, "device", mask)[1], "device")(sharded, masks)
    np.testing.assert_array_equal(each.codes, np.stack([step.codes] * 4))
    for state in (jax.tree.map(lambda x, i=i: x[i], each.state) for i in range(4)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), state, step.state)
    centres = codes_from_data(PADDED, jnp.zeros((K, D)), key, iterations=3, mask=jnp.asarray(MASK))
    assert np.abs(centres).max() < 99


def test_a_masked_mean_over_devices_is_that_of_all_positions():
    values, mask = PADDED.reshape(4, -1, D), MASK.reshape(4, -1)
    mask[0] = False  # a device without any position
    means = jax.pmap(lambda x, m: losses.masked_mean(x, m, "device"), "device")(values, mask)
    np.testing.assert_allclose(means.mean(), values[mask].mean(), rtol=1e-5)
    per_channel = losses.masked_mean(values.reshape(N, D), mask.reshape(N), axis=0)
    np.testing.assert_allclose(per_channel, values[mask].mean(axis=0), rtol=1e-5)
    assert losses.masked_mean(jnp.ones(3), jnp.zeros(3, bool)) == 0


@pytest.mark.parametrize("name", [name for name in QUANTIZERS if made(QUANTIZERS[name]).has_entropy_loss])
def test_the_entropy_term_of_every_quantizer_leaves_padding_out(name):
    quantizer = made(QUANTIZERS[name])
    arrays, key = quantizer.init(jax.random.key(0)), jax.random.key(1)
    alone = quantizer.entropy(VECTORS[MASK], quantizer.step(*arrays, VECTORS[MASK], key, None)[1], 1.0, None)
    step = quantizer.step(*arrays, PADDED, key, None, MASK)[1]
    np.testing.assert_allclose(quantizer.entropy(PADDED, step, 1.0, None, MASK), alone, rtol=1e-4)


def test_the_entropy_term_leaves_padding_out():
    costs = np.square(PADDED @ np.ones((D, K), np.float32) + np.arange(K, dtype=np.float32))
    alone = losses.entropy_term(jnp.asarray(costs[MASK]), 1.0)
    np.testing.assert_allclose(losses.entropy_term(jnp.asarray(costs), 1.0, mask=jnp.asarray(MASK)), alone, rtol=1e-5)
