"""DiVeQ: the paper's gradients, codes that learn from the decoder alone, noise in training only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hvq_jax import latents
from hvq_jax.quantizers import CodebookOptions, LatentOptions, codebook, make_quantizer
from tests.quantizers.compiled import compiled

K, D = 6, 4
NUMBERS = st.lists(st.floats(-4, 4, width=32), min_size=D, max_size=D)


def quantizer(noise=1e-3, learning="diveq", family="codebook", **options):
    latent_options = LatentOptions(mode="vq", num_codes=K, dim=D, estimator="diveq", direction_noise=noise)
    return compiled(make_quantizer(latent_options, CodebookOptions(family=family, learning=learning, **options)))


def vectors(seed=1):
    return jax.random.normal(jax.random.key(seed), (40, 2, D))


def unit(x):
    return x / np.linalg.norm(x)


diveq, jacobians = jax.jit(latents.diveq), jax.jit(jax.jacobian(latents.diveq, argnums=(0, 1)))


@settings(max_examples=20)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_value_and_gradients_are_the_papers(z_e, code, noise):
    """z_bar = z_e + |e − z_e| sg(v), v the unit vector of e − z_e + noise: d z_bar / d z_e = I − v uᵀ, d e: v uᵀ."""
    z_e, code, noise = (np.array(x, np.float64) for x in (z_e, code, noise))
    error = code - z_e
    if np.linalg.norm(error) < 1e-2 or np.linalg.norm(error + noise) < 1e-2:
        return
    direction = unit(error + noise)
    arguments = (jnp.float32(z_e), jnp.float32(code), jnp.float32(noise))
    expected = z_e + np.linalg.norm(error) * direction
    np.testing.assert_allclose(diveq(*arguments), expected, rtol=1e-3, atol=1e-3)
    by_z_e, by_code = jacobians(*arguments)
    outer = np.outer(direction, unit(error))
    np.testing.assert_allclose(by_code, outer, atol=2e-3)
    np.testing.assert_allclose(by_z_e, np.eye(D) - outer, atol=2e-3)


def test_without_noise_the_value_is_the_code_bit_for_bit():
    z_e, code = vectors(1), vectors(2)
    np.testing.assert_array_equal(latents.diveq(z_e, code), code)
    gradients = jax.grad(lambda z, e: jnp.sum(latents.diveq(z, e)), argnums=(0, 1))(code, code)
    assert all(np.isfinite(gradient).all() for gradient in gradients)  # at a distance of 0 too


@pytest.mark.parametrize("family", ["codebook", "grouped"])
def test_a_step_sees_noise_and_an_evaluation_the_codes(family):
    model, z_e = quantizer(0.01, family=family), vectors()
    params, state = model.init(jax.random.key(0))
    latent, step = model.step(params, state, z_e, jax.random.key(2), None)
    distances = np.linalg.norm(latent.z_bar - latent.z_q, axis=-1)
    assert 0 < distances.mean() < 0.5
    if family == "codebook":  # the noise turns the way to the code, and leaves its length
        np.testing.assert_allclose(
            np.linalg.norm(latent.z_bar - z_e, axis=-1), np.linalg.norm(latent.z_q - z_e, axis=-1), rtol=1e-4, atol=1e-5
        )
    seen = model.quantize(params, step.state, z_e)
    np.testing.assert_array_equal(seen.z_bar, seen.z_q)
    np.testing.assert_array_equal(model.vectors(params, step.state, seen.indices), seen.z_bar)
    other, _ = model.step(params, state, z_e, jax.random.key(3), None)
    assert not np.array_equal(other.z_bar, latent.z_bar)


def test_noise_has_its_variance_and_is_the_same_on_four_devices():
    model, z_e = quantizer(0.01, learning="gradient", init="uniform"), vectors()
    noise = codebook.draw_noise(jax.random.key(0), (1000, D))
    assert np.mean(noise) == pytest.approx(0, abs=0.05)
    assert np.var(noise) == pytest.approx(1, abs=0.1)
    arrays, key = model.init(jax.random.key(0)), jax.random.key(1)
    whole = model.step(*arrays, z_e, key, None)[0].z_bar
    shards = jax.pmap(lambda z: model.step(*arrays, z, key, "device")[0].z_bar, "device")(z_e.reshape(4, 10, 2, D))
    np.testing.assert_allclose(shards.reshape(whole.shape), whole, rtol=1e-5, atol=1e-6)


def test_codes_learn_from_the_decoder_alone():
    """Towards a target that no loss of the quantizer names."""
    model, target = quantizer(), jnp.array([3.0, 0.0, 0.0, 0.0])
    assert not model.has_codebook_loss
    assert not model.has_commitment_loss
    params, state = model.init(jax.random.key(0))
    state = model.step(params, state, vectors(), jax.random.key(1), None)[1].state

    @jax.jit
    def loss(params):
        return jnp.mean(jnp.square(model.quantize(params, state, vectors()).z_bar - target))

    gradients = jax.jit(jax.grad(loss))(params)
    used = np.unique(model.quantize(params, state, vectors()).indices)
    assert np.abs(gradients["codes"][used]).max(-1).min() > 0
    assert loss(jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)) < loss(params)


def test_dead_codes_are_moved_and_stay_where_they_are_moved():
    model = quantizer(init="uniform", revive_below=0.5, decay=0.5)
    params, state = model.init(jax.random.key(0))
    params = {"codes": params["codes"].at[2].set(100.0)}  # which nothing is near to
    revived = []
    for seed in range(3):
        z_e = vectors(seed)
        _, step = model.step(params, state, z_e, jax.random.key(seed), None)
        revived.append(bool(step.revived[2]))
        before, state = state, step.state
        assert step.state.frequency[2] >= step.counts[2]
        if revived[-1]:
            distance = np.abs(np.asarray(z_e).reshape(-1, D) - step.codes[2]).max(-1).min()
            assert distance < 1e-4
        untouched = ~step.revived
        np.testing.assert_array_equal(step.codes[untouched], model.codes(params, before)[untouched])
    assert revived[0] is False  # it starts with the count of a code in use
    assert revived[1]
    gradient = jax.grad(lambda params: jnp.sum(model.codes(params, state)))(params)
    np.testing.assert_array_equal(gradient["codes"], np.ones((K, D)))


def test_the_first_step_starts_all_codes_on_the_data():
    model = quantizer()
    assert not model.starts_from_data
    _, step = model.step(*model.init(jax.random.key(0)), vectors(), jax.random.key(1), None)
    assert step.revived.all()
    rows = np.asarray(vectors()).reshape(-1, D)
    assert max(np.abs(rows - code).max(-1).min() for code in step.codes) < 1e-6


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        ({"mode": "vq"}, "latent.estimator=straight_through: codebook.learning=diveq needs latent.estimator=diveq"),
        ({"estimator": "diveq"}, "latent.mode=projected: codebook.learning=diveq needs latent.mode=vq"),
    ],
)
def test_codes_that_would_not_learn_are_refused(latent, message):
    with pytest.raises(ValueError, match=message):
        make_quantizer(LatentOptions(**latent), CodebookOptions(learning="diveq"))


def test_noise_is_an_option_of_this_estimator_alone():
    with pytest.raises(
        ValueError, match=r"direction_noise=0\.1: estimator=rotation has no such option: choose estimator"
    ):
        LatentOptions(estimator="rotation", direction_noise=0.1)
