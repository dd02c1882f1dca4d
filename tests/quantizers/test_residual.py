"""Residual quantization: each level is nearest to the rest, and is learned from it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.quantizers.options import CodebookOptions, LatentOptions
from hvq_jax.quantizers.residual import ResidualQuantizer, sum_of_codes
from tests.quantizers.compiled import compiled

K, D, L = 5, 4, 3


def quantizer(**codebook_options):
    options = CodebookOptions(family="residual", depth=L, **codebook_options)
    return compiled(ResidualQuantizer(LatentOptions(mode="vq", num_codes=K, dim=D), options))


def vectors(seed=1, size=40):
    return jax.random.normal(jax.random.key(seed), (size, 2, D))


@pytest.fixture(scope="module")
def arrays():
    """Parameters and state of codebooks that have seen one batch."""
    model = quantizer()
    params, state = model.init(jax.random.key(0))
    return params, model.step(params, state, vectors(), jax.random.key(2), None)[1].state


def test_each_level_is_nearest_to_what_the_former_ones_leave(arrays):
    z_e, model = vectors(3), quantizer()
    codes = model.codes(*arrays)
    assert codes.shape == (L, K, D)
    latent = model.quantize(*arrays, z_e)
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
    model, z_e = quantizer(), vectors()
    fresh = model.init(jax.random.key(0))
    latent, step = model.step(*fresh, z_e, jax.random.key(2), None)
    assert step.revived.all()
    assert step.counts.shape == step.state.frequency.shape == (L, K)
    np.testing.assert_array_equal(step.counts.sum(1), np.full(L, 80))
    rest = z_e
    for level, key in enumerate(jax.random.split(jax.random.key(2), L)):
        one = jax.tree.map(lambda leaf, level=level: leaf[level], fresh)
        alone = compiled(model.one).learn(*one, rest, key, None)
        ours = jax.tree.map(lambda leaf, level=level: leaf[level], (step.state, step.codes, step.counts))
        chex.assert_trees_all_close(ours, (alone.state, alone.codes, alone.counts), atol=1e-6)
        rest = rest - alone.codes[alone.indices]
    np.testing.assert_array_equal(latent.z_bar, sum_of_codes(step.indices, step.codes))


def test_more_levels_leave_less(arrays):
    z_e = vectors()
    indices, codes = quantizer().quantize(*arrays, z_e).indices, quantizer().codes(*arrays)
    errors = [jnp.mean(jnp.square(z_e - sum_of_codes(indices[..., :n], codes[:n]))) for n in range(1, L + 1)]
    assert errors[0] > errors[1] > errors[2]


def test_k_means_starts_every_level():
    model, z_e = quantizer(init="kmeans"), vectors()
    assert model.starts_from_data
    started = model.start_from_data(*model.init(jax.random.key(0)), z_e, jax.random.key(1), None)
    params, state = quantizer().init(jax.random.key(0))
    random = model.step(params, state, z_e, jax.random.key(2), None)[1]
    codes = model.codes(*started)
    drawn = random.state.replace(learned=random.state.learned.replace(codes=random.codes))
    errors = [
        float(jnp.mean(jnp.square(z_e - model.quantize(*arrays, z_e).z_q))) for arrays in (started, (params, drawn))
    ]
    assert errors[0] < errors[1]
    _, step = model.step(*started, z_e, jax.random.key(2), None)
    assert not step.revived.any()
    np.testing.assert_array_equal(step.codes, codes)


def test_the_gradient_of_the_sum_goes_to_the_encoder(arrays):
    weights = jnp.arange(1.0, D + 1)
    gradient = jax.grad(lambda z: jnp.sum(weights * quantizer().quantize(*arrays, z).z_bar))(vectors())
    np.testing.assert_array_equal(gradient, jnp.broadcast_to(weights, gradient.shape))
