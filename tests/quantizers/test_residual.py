"""Residual quantization: each level is nearest to the rest, and is learned from it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.quantizers.bottleneck import CodebookOptions, LatentOptions
from hvq_jax.quantizers.residual import ResidualBottleneck, sum_of_codes

K, D, L = 5, 4, 3


def bottleneck(**codebook):
    return ResidualBottleneck(LatentOptions(mode="vq", num_codes=K, dim=D), CodebookOptions(depth=L, **codebook))


def vectors(seed=1, size=40):
    return jax.random.normal(jax.random.key(seed), (size, 2, D))


@pytest.fixture(scope="module")
def state():
    """Codebooks that have seen one batch."""
    model = bottleneck()
    return model.train(model.init(jax.random.key(0)), vectors(), jax.random.key(2), None)[1].state


def test_each_level_is_nearest_to_what_the_former_ones_leave(state):
    z_e, model = vectors(3), bottleneck()
    codes = model.codes(state)
    assert codes.shape == (L, K, D)
    latent = model.quantize(state, z_e)
    assert latent.indices.shape == (40, 2, L)
    rest = z_e
    for level in range(L):
        np.testing.assert_array_equal(latent.indices[..., level], nearest_codes(rest, codes[level]))
        rest = rest - codes[level][latent.indices[..., level]]
    # The sum is added up in another order than the rests.
    np.testing.assert_allclose(latent.z_q, z_e - rest, atol=1e-6)
    np.testing.assert_array_equal(sum_of_codes(latent.indices, codes), latent.z_bar)


def test_the_first_step_starts_each_level_on_its_rests():
    """By revival of codes that nothing has used; each level learns as one codebook would learn from the rest."""
    model, z_e = bottleneck(), vectors()
    fresh = model.init(jax.random.key(0))
    latent, learned = model.train(fresh, z_e, jax.random.key(2), None)
    assert learned.revived.all()
    assert learned.counts.shape == learned.state.frequency.shape == (L, K)
    np.testing.assert_array_equal(learned.counts.sum(1), np.full(L, 80))
    rest = z_e
    for level, key in enumerate(jax.random.split(jax.random.key(2), L)):
        one = jax.tree.map(lambda leaf, level=level: leaf[level], fresh)
        alone = model._level.learn(one, rest, key, None)
        ours = jax.tree.map(lambda leaf, level=level: leaf[level], (learned.state, learned.codes, learned.counts))
        chex.assert_trees_all_close(ours, (alone.state, alone.codes, alone.counts), atol=1e-6)
        rest = rest - alone.codes[alone.indices]
    np.testing.assert_array_equal(latent.z_bar, sum_of_codes(learned.indices, learned.codes))


def test_more_levels_leave_less(state):
    z_e = vectors()
    indices, codes = bottleneck().quantize(state, z_e).indices, bottleneck().codes(state)
    errors = [jnp.mean(jnp.square(z_e - sum_of_codes(indices[..., :n], codes[:n]))) for n in range(1, L + 1)]
    assert errors[0] > errors[1] > errors[2]


def test_k_means_starts_every_level():
    model, z_e = bottleneck(init="kmeans"), vectors()
    assert model.starts_from_data
    started = model.start_from_data(model.init(jax.random.key(0)), z_e, jax.random.key(1), None)
    random = model.train(bottleneck().init(jax.random.key(0)), z_e, jax.random.key(2), None)[1]
    codes = model.codes(started)
    errors = [
        float(jnp.mean(jnp.square(z_e - model.quantize(state, z_e).z_q)))
        for state in (started, random.state.replace(averages=random.state.averages.replace(codes=random.codes)))
    ]
    assert errors[0] < errors[1]
    _, learned = model.train(started, z_e, jax.random.key(2), None)
    assert not learned.revived.any()
    np.testing.assert_array_equal(learned.codes, codes)


def test_the_gradient_of_the_sum_goes_to_the_encoder(state):
    weights = jnp.arange(1.0, D + 1)
    gradient = jax.grad(lambda z: jnp.sum(weights * bottleneck().quantize(state, z).z_bar))(vectors())
    np.testing.assert_array_equal(gradient, jnp.broadcast_to(weights, gradient.shape))
