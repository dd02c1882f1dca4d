"""One codebook in its variants: where codes are kept, what length they have, what they learn from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax import autoencoder, latents
from hvq_jax.losses import entropy_term
from hvq_jax.quantizers.assignment import code_costs
from hvq_jax.quantizers.bottleneck import CodebookBottleneck, CodebookOptions, CodebookState, LatentOptions
from tests.methods import METHODS

K, D = 6, 4


def bottleneck(mode="projected", **codebook):
    return CodebookBottleneck(LatentOptions(mode=mode, num_codes=K, dim=D), CodebookOptions(**codebook))


def vectors(seed=1, size=40):
    return 3 * jax.random.normal(jax.random.key(seed), (size, 2, D))


def step(model, state, z_e):
    return model.train(state, z_e, jax.random.key(2), None)


@pytest.mark.parametrize("assignment", ["euclidean", "cosine", "projection"])
def test_a_spherical_codebook_has_unit_norm_and_leaves_the_length_to_the_gain(assignment):
    model = bottleneck(method="spherical", assignment=assignment, decay=0.5)
    state = model.init(jax.random.key(0))
    for seed in range(3):
        z_e = vectors(seed)
        latent, learned = step(model, state, z_e)
        state = learned.state
        np.testing.assert_allclose(np.linalg.norm(model.codes(state), axis=-1), np.ones(K), rtol=1e-5)
        np.testing.assert_allclose(latent.gain, latents.signed_length(z_e, latent.z_q), rtol=1e-4, atol=1e-5)
    # Only the nearest line may be behind a vector's back.
    assert (np.asarray(latent.gain) < -1e-6).any() == (assignment == "projection")


def test_a_step_of_a_spherical_codebook_takes_the_direction_of_the_averaged_sum():
    model = bottleneck(method="spherical", assignment="projection", decay=0.9, revive_below=0.0)
    start = latents.unit(jax.random.normal(jax.random.key(3), (K, D)))
    state = model.init(jax.random.key(0))
    state = state.replace(averages=state.averages.replace(codes=start, sums=2 * start, counts=jnp.full(K, 2.0)))
    z_e = vectors()
    _, learned = step(model, state, z_e)
    z_e, start = np.asarray(z_e, np.float64).reshape(-1, D), np.asarray(start, np.float64)
    inner = z_e @ start.T
    nearest = np.abs(inner).argmax(1)
    for j in range(K):
        signs = np.sign(inner[nearest == j, j])
        total = 0.9 * 2 * start[j] + 0.1 * (signs[:, None] * z_e[nearest == j]).sum(0)
        np.testing.assert_allclose(model.codes(learned.state)[j], total / np.linalg.norm(total), atol=1e-5)


def test_codes_by_line_lower_the_error_of_projection_where_nearest_codes_do_not():
    """On vectors ± along six axes, six lines are enough."""
    axes = latents.unit(jax.random.normal(jax.random.key(5), (K, D)))
    signs_and_lengths = jnp.array([-3.0, -1.0, 1.0, 2.0])
    z_e = (signs_and_lengths[:, None, None] * axes).reshape(-1, D)

    def error(assignment):
        model = bottleneck(method="spherical", assignment=assignment, decay=0.0)
        state = model.init(jax.random.key(0))
        for _ in range(10):
            latent, learned = step(model, state, z_e)
            state = learned.state
        return float(jnp.mean(jnp.square(z_e - latent.projection)))

    assert error("projection") < 0.5 * error("cosine")


@pytest.mark.parametrize("method", ["gradient", "ema"])
def test_codes_of_unit_norm_are_what_every_part_sees(method):
    model = bottleneck("vq", method=method, normalize=True, init="uniform")
    state = model.init(jax.random.key(0))
    z_e = latents.unit(vectors())
    latent, learned = step(model, state, z_e)
    np.testing.assert_allclose(np.linalg.norm(latent.z_bar, axis=-1), np.ones((40, 2)), rtol=1e-5)
    np.testing.assert_array_equal(latent.z_q, model.codes(state)[latent.indices])
    np.testing.assert_array_equal(learned.codes, model.codes(state))
    # On the sphere the nearest code is that of the nearest direction.
    by_cosine = bottleneck("vq", method=method, normalize=True, init="uniform", assignment="cosine")
    np.testing.assert_array_equal(by_cosine.quantize(state, z_e).indices, model.quantize(state, z_e).indices)


def test_the_gradient_of_normalised_codes_is_tangent_to_the_sphere():
    model = bottleneck("vq", method="gradient", normalize=True, init="uniform")
    codes = jax.random.normal(jax.random.key(1), (K, D))

    def pull(codes):
        state = CodebookState({"codebook": codes}, jnp.zeros(K), None)
        latent = model.quantize(state, latents.unit(vectors()))
        return jnp.mean(jnp.square(latent.z_q - latents.unit(vectors())))

    gradient = jax.grad(pull)(codes)
    assert np.abs(gradient).max() > 1e-4
    np.testing.assert_allclose(jnp.sum(gradient * codes, -1), np.zeros(K), atol=1e-6)


@pytest.mark.parametrize(
    ("method", "init", "from_data"),
    [
        ("ema", "uniform", False),
        ("ema", "data", False),  # by revival, in the first step
        ("ema", "kmeans", True),
        ("spherical", "data", False),
        ("gradient", "uniform", False),
        ("gradient", "data", True),
        ("gradient", "kmeans", True),
    ],
)
@pytest.mark.parametrize("revive_below", [0.0, 1.0, 5.0])
def test_where_codes_start(method, init, from_data, revive_below):
    model = bottleneck(method=method, init=init, revive_below=revive_below)
    assert model.starts_from_data == from_data
    if not from_data:
        return
    z_e = vectors()
    started = model.start_from_data(model.init(jax.random.key(0)), z_e, jax.random.key(4), None)
    codes = model.codes(started)
    if init == "data":
        assert {tuple(code) for code in np.asarray(codes)} <= {tuple(z) for z in np.asarray(z_e).reshape(-1, D)}
    # Nothing is revived in the first step: it would undo the start.
    _, learned = step(model, started, z_e)
    assert not learned.revived.any()
    np.testing.assert_array_equal(learned.codes, codes)


def learn(model, batches, axis_name=None):
    """Codes, frequencies and counts after a few steps, by gradient descent where they are parameters."""
    bottleneck, key = autoencoder.bottleneck_of(model), jax.random.key(0)
    state = bottleneck.init(jax.random.key(1))
    if bottleneck.starts_from_data:
        state = bottleneck.start_from_data(state, batches[0], key, axis_name)
    seen = []
    for step, z_e in enumerate(batches):

        def loss(params, state=state, z_e=z_e, step=step):
            before = dataclasses.replace(state, params=params)
            latent, learned = bottleneck.train(before, z_e, jax.random.fold_in(key, step), axis_name)
            value = jnp.mean(jnp.square(latent.z_q - z_e))
            if model.loss.entropy:
                costs = code_costs(z_e, learned.codes, model.codebook.assignment)
                value += entropy_term(costs, model.loss.entropy_temperature, axis_name)
            return value, learned

        gradients, learned = jax.grad(loss, has_aux=True)(state.params)
        if axis_name:
            gradients = jax.lax.pmean(gradients, axis_name)
        params = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, gradients)
        state = dataclasses.replace(learned.state, params=params)
        seen.append((learned.counts, learned.revived))
    return bottleneck.codes(state), state.frequency, seen


@pytest.mark.parametrize("method", METHODS)
def test_one_device_and_four_learn_the_same_codebook(method):
    """Of the same global batches: assignments, frequencies and revivals exactly, codes to the order of addition.

    Sums of at most 64 float32 numbers of size 3 round by 1e-6 or so, and a few steps add that up.
    """
    model = METHODS[method]
    batches = [3 * jax.random.normal(jax.random.key(seed), (16, 2, 2, D)) for seed in range(3)]
    batches = [latents.unit(z_e) if model.codebook.normalize else z_e for z_e in batches]
    codes, frequency, seen = jax.jit(lambda batches: learn(model, batches))(batches)
    shards = [z_e.reshape(4, 4, 2, 2, D) for z_e in batches]
    many = jax.pmap(lambda batches: learn(model, batches, "devices"), "devices")(shards)
    for leaf in jax.tree.leaves(many):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    four = jax.tree.map(lambda leaf: leaf[0], many)
    np.testing.assert_allclose(four[0], codes, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, four[1:], (frequency, seen))
    assert np.abs(codes).max() > 0.1
    if model.codebook.normalize or model.codebook.method == "spherical":
        np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), np.ones(len(codes)), rtol=1e-5)
