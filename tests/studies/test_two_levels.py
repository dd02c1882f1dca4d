"""Residual quantization with K and G codes."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from hvq_jax.errors import ArgumentError
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.quantizers.options import CodebookOptions, LatentOptions
from hvq_jax.quantizers.residual import ResidualQuantizer
from studies.frontier.two_levels import TwoLevels

K, G, D = 8, 4, 3


def quantizer(bits=2, **options):
    codebook = CodebookOptions(family="studies.frontier.two_levels:TwoLevels", depth=2, bits=bits, **options)
    return TwoLevels(LatentOptions(mode="vq", num_codes=K, dim=D), codebook)


def vectors(seed=1):
    return jax.random.normal(jax.random.key(seed), (60, 2, D))


def trained(model, steps=3):
    params, state = jax.jit(model.init)(jax.random.key(0))
    params, state = jax.jit(partial(model.start_from_data, axis_name=None))(params, state, vectors(), jax.random.key(1))
    train = jax.jit(partial(model.step, axis_name=None))
    for number in range(steps):
        step = train(params, state, vectors(number), jax.random.key(number))[1]
        state = step.state
    return params, state, step


def test_the_second_level_has_g_codes_and_is_nearest_to_the_rest():
    model = quantizer()
    params, state, step = trained(model)
    codes = model.codes(params, state)
    assert codes.shape == (2, K, D)
    assert (codes[1, G:] == 0).all()
    assert (step.counts[1, G:] == 0).all()
    np.testing.assert_array_equal(step.counts.sum(axis=1), [120, 120])
    z_e = vectors(9)
    latent = jax.jit(model.quantize)(params, state, z_e)
    rest = z_e - codes[0][latent.indices[..., 0]]
    np.testing.assert_array_equal(latent.indices[..., 0], nearest_codes(z_e, codes[0]))
    np.testing.assert_array_equal(latent.indices[..., 1], nearest_codes(rest, codes[1, :G]))
    np.testing.assert_allclose(latent.z_q, model.vectors(params, state, latent.indices), atol=1e-6)
    assert np.square(z_e - latent.z_q).mean() < np.square(rest).mean()


def test_with_g_equal_to_k_it_is_residual_quantization():
    model = quantizer(bits=3)
    options = dataclasses.replace(model.codebook_options, family="residual", bits=CodebookOptions().bits)
    usual = ResidualQuantizer(model.latent_options, options)
    (params, state, step), (usual_params, usual_state, usual_step) = trained(model), trained(usual)
    np.testing.assert_allclose(model.codes(params, state), usual.codes(usual_params, usual_state), rtol=1e-5)
    np.testing.assert_array_equal(step.counts, usual_step.counts)
    np.testing.assert_array_equal(step.indices, usual_step.indices)


@pytest.mark.parametrize(("depth", "bits", "named"), [(3, 2, "codebook.depth=3"), (2, 4, "codebook.bits=4")])
def test_options_that_do_not_fit_are_named(depth, bits, named):
    options = dataclasses.replace(quantizer().codebook_options, depth=depth, bits=bits)
    with pytest.raises(ArgumentError, match=named):
        TwoLevels(LatentOptions(mode="vq", num_codes=K, dim=D), options)
