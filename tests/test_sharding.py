"""Meshes as `jax.make_mesh` makes them, whose axes are explicit: the same results, sharded like the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import hvq_jax as hvq
from hvq_jax import autoencoder, latents, losses
from hvq_jax.quantizers.assignment import code_costs
from tests.methods import METHODS

RNG = np.random.default_rng(0)
Z_E = RNG.normal(size=(8, 5, 4)).astype(np.float32)
CODES = RNG.normal(size=(8, 4)).astype(np.float32)  # as many as the batch has rows
INDICES = np.asarray(hvq.nearest_codes(Z_E, CODES))
FREQUENT = np.arange(8) < 3
GAINS = RNG.normal(size=(8, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def sharding():
    mesh = jax.make_mesh((4,), ("data",))
    assert mesh.axis_types == (AxisType.Explicit,)
    return NamedSharding(mesh, P("data"))


# Of (z_e, indices, gains), which are split over the mesh.
FUNCTIONS = {
    "nearest_codes": lambda z, i, g: hvq.nearest_codes(z, CODES),
    "code_costs": lambda z, i, g: code_costs(z, CODES, "cosine"),
    "hybrid_latent": lambda z, i, g: hvq.hybrid_latent(z, CODES, i, FREQUENT, mode="combined", estimator="rotation"),
    "codes_of": lambda z, i, g: hvq.codes_of(z, CODES, mode="frequency", frequent=FREQUENT),
    "from_codes": lambda z, i, g: hvq.from_codes(i, CODES, g),
    "latent_from_codes": lambda z, i, g: latents.latent_from_codes(i, CODES, g),
    "elementwise": lambda z, i, g: [
        latents.project(z, jnp.asarray(CODES)[0]),
        latents.unit(z),
        latents.gain(z, z),
        latents.signed_length(z, z),
        latents.straight_through(z, z),
        latents.split_channels(z, 2),
        latents.scaled(z, g),
    ],
    "losses": lambda z, i, g: losses.latent_losses(
        z, hvq.hybrid_latent(z, CODES, i, mode="projected"), lambda x: jnp.mean(x, axis=(1, 2))
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pure_functions_take_explicitly_sharded_arrays(name, sharding):
    function = FUNCTIONS[name]
    arrays = (Z_E, INDICES, GAINS)
    result = jax.jit(function)(*jax.device_put(arrays, sharding))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), result, jax.jit(function)(*arrays)
    )
    for leaf in jax.tree.leaves(result):
        spec = jax.typeof(leaf).sharding.spec
        assert spec[:1] == ("data",) if leaf.ndim and leaf.shape[0] == 8 else True


def test_without_a_compiled_function_too(sharding):
    z_e, indices = jax.device_put((Z_E, INDICES), sharding)
    latent = hvq.hybrid_latent(z_e, CODES, indices, mode="projected")
    np.testing.assert_array_equal(latent.indices, INDICES)
    assert jax.typeof(latent.gain).sharding.spec == P("data", None)
    with jax.set_mesh(sharding.mesh):
        closed_over = jax.jit(lambda: hvq.hybrid_latent(z_e, CODES, indices, mode="projected"))()
    np.testing.assert_array_equal(closed_over.z_bar, latent.z_bar)


def test_axes_are_split_as_far_as_the_result_shares_them():
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    z_e = jax.device_put(Z_E[:, :4], NamedSharding(mesh, P("data", None, "model")))
    latent = jax.jit(lambda z: hvq.hybrid_latent(z, CODES, hvq.nearest_codes(z, CODES), mode="vq"))(z_e)
    assert jax.typeof(latent.z_bar).sharding.spec == P("data", None, "model")
    assert jax.typeof(latent.indices).sharding.spec == P("data", None)
    np.testing.assert_array_equal(latent.indices, INDICES[:, :4])


def test_a_training_step_of_the_autoencoder_takes_explicitly_sharded_images(sharding):
    model = METHODS["averages from data"]
    variables = jax.jit(lambda: autoencoder.init(model, jax.random.key(0)))()
    images = np.asarray(jax.random.uniform(jax.random.key(1), (8, 8, 8, 1), minval=-1.0))

    def step(params, state, images):
        def loss(params):
            return autoencoder.training_loss(model, params, state, images, jax.random.key(2))

        return jax.value_and_grad(loss, has_aux=True)(params)

    compiled = jax.jit(step)
    alone = compiled(variables.params, variables.state, images)
    shared = compiled(variables.params, variables.state, jax.device_put(images, sharding))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), shared, alone)
    variables = autoencoder.Variables(variables.params, shared[0][1][0])
    encoded = jax.jit(lambda x: autoencoder.encode_to_latent(model, variables, x))(jax.device_put(images, sharding))
    assert jax.typeof(encoded.z_bar).sharding.spec[0] == "data"
