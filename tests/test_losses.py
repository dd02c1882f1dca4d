import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax import latents, losses
from hvq_jax.errors import ArgumentError
from hvq_jax.quantizers.assignment import nearest_codes

B, H, K, D = 3, 2, 5, 4


def setup(mode, gradient="encoder", frequent=None):
    keys = jax.random.split(jax.random.key(0), 4)
    x, y = (jax.random.normal(key, (B, 8, 8, 1)) for key in keys[:2])
    z_e, codes = jax.random.normal(keys[2], (B, H, H, D)), jax.random.normal(keys[3], (K, D))
    frequent = jnp.arange(K) < 2 if frequent is None else frequent
    indices = nearest_codes(z_e, codes)

    def latent_of(z_e, codes):
        return latents.hybrid_latent(z_e, codes, indices, frequent, mode=mode, projection_gradient=gradient)

    return x, y, z_e, codes, latent_of


@pytest.mark.parametrize("mode", latents.LATENTS)
@pytest.mark.parametrize("target", losses.COMMITMENT_TARGETS)
def test_each_term_is_its_formula(mode, target):
    x, y, z_e, codes, latent_of = setup(mode)
    latent = latent_of(z_e, codes)
    found = losses.losses_per_image(x, y, z_e, latent, commitment_target=target)
    z_q, projection = np.asarray(latent.z_q), np.asarray(latent.projection)
    outside = {"projected": np.ones((B, H, H, 1)), "combined": ~np.asarray(latent.discrete)}.get(mode, 0.0)
    size = B * H * H * D
    expected = {
        "reconstruction": np.mean(np.square(y - x)),
        "codebook": np.mean(np.square(z_q - z_e)),
        "commitment": np.mean(np.square(z_e - (z_q if target == "code" else projection))),
        "projection": np.sum(outside * np.square(projection - z_q)) / size,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(jnp.mean(getattr(found, name)), value, rtol=1e-5, atol=1e-7, err_msg=name)
    weights = losses.LossOptions(codebook_weight=2.0, commitment_weight=0.25, projection_weight=3.0)
    total = jnp.mean(losses.total_loss(found, weights))
    by_hand = sum(
        weight * expected[name]
        for name, weight in (("reconstruction", 1), ("codebook", 2), ("commitment", 0.25), ("projection", 3))
    )
    np.testing.assert_allclose(total, by_hand, rtol=1e-5)


def gradient_of(term, mode="projected", gradient="encoder", target="code"):
    x, y, z_e, codes, latent_of = setup(mode, gradient)

    def loss(z_e, codes):
        latent = latent_of(z_e, codes)
        found = losses.losses_per_image(x, y, z_e, latent, commitment_target=target)
        return jnp.mean(getattr(found, term)), latent

    gradients, latent = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(z_e, codes)
    return *gradients, z_e, latent


def test_the_codebook_term_moves_codes_only_and_the_commitment_term_the_encoder_only():
    to_z_e, to_codes, z_e, latent = gradient_of("codebook")
    np.testing.assert_array_equal(to_z_e, np.zeros_like(z_e))
    expected = np.zeros((K, D))
    np.add.at(expected, np.asarray(latent.indices), 2 * np.asarray(latent.z_q - z_e) / z_e.size)
    np.testing.assert_allclose(to_codes, expected, atol=1e-6)

    to_z_e, to_codes, z_e, latent = gradient_of("commitment")
    np.testing.assert_allclose(to_z_e, 2 * (z_e - latent.z_q) / z_e.size, atol=1e-7)
    np.testing.assert_array_equal(to_codes, np.zeros((K, D)))


def test_commitment_to_the_projection_leaves_the_gain_free():
    to_z_e, to_codes, _, latent = gradient_of("commitment", target="projection")
    along_the_code = jnp.sum(to_z_e * latent.z_q, axis=-1)
    np.testing.assert_allclose(along_the_code, np.zeros((B, H, H)), atol=1e-6)
    assert np.abs(to_z_e).max() > 1e-3
    np.testing.assert_array_equal(to_codes, np.zeros((K, D)))


def test_the_projection_term_follows_projection_gradient():
    to_z_e, to_codes, z_e, latent = gradient_of("projection", gradient="straight_through")
    np.testing.assert_allclose(to_z_e, 2 * (latent.projection - latent.z_q) / z_e.size, atol=1e-7)
    np.testing.assert_array_equal(to_codes, np.zeros((K, D)))
    assert np.abs(gradient_of("projection", gradient="both")[1]).max() > 1e-3


def test_pythagoras_ties_commitment_to_the_gain():
    """|z_e - e|² = |z_e - P|² + (α - 1)²|e|²: the commitment terms differ by the projection term."""
    x, y, z_e, codes, latent_of = setup("projected")
    latent = latent_of(z_e, codes)
    to_code = losses.losses_per_image(x, y, z_e, latent)
    to_projection = losses.losses_per_image(x, y, z_e, latent, commitment_target="projection")
    np.testing.assert_allclose(to_code.commitment, to_projection.commitment + to_code.projection, rtol=1e-5)


def test_an_unknown_target_of_the_commitment_is_refused_with_the_known_ones():
    x, y, z_e, codes, latent_of = setup("projected")
    with pytest.raises(ArgumentError) as error:
        losses.losses_per_image(x, y, z_e, latent_of(z_e, codes), commitment_target="gain")
    assert str(error.value) == "commitment_target=gain: choose one of code, projection"


COSTS = jax.random.normal(jax.random.key(7), (8, 3, K))


def test_the_entropy_term_is_its_formula():
    p = np.asarray(jax.nn.softmax(-COSTS / 0.5), np.float64).reshape(-1, K)
    mean = p.mean(0)
    expected = -(p * np.log(p)).sum(1).mean() + (mean * np.log(mean)).sum()
    np.testing.assert_allclose(losses.entropy_term(COSTS, 0.5), expected, rtol=1e-5)


def test_the_entropy_term_is_least_where_vectors_are_sure_and_codes_used_alike():
    sure = 1e3 * (1 - jnp.eye(K))  # softmax underflows to exact zeros
    np.testing.assert_allclose(losses.entropy_term(sure, 1.0), -np.log(K), rtol=1e-6)
    np.testing.assert_allclose(losses.entropy_term(jnp.zeros((4, K)), 1.0), 0.0, atol=1e-6)
    unchoosable = sure.at[:, 0].set(jnp.inf)
    value_and_gradient = jax.jit(jax.value_and_grad(losses.entropy_term))
    for costs in (sure, unchoosable, jnp.zeros((K, K))):
        value, gradient = value_and_gradient(costs, 1.0)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_the_entropy_of_the_mean_is_that_of_the_global_batch_in_value_and_gradient():
    """On four devices as on one, to the rounding of a mean of means."""

    def term(scale, costs, axis_name=None):
        return losses.entropy_term(scale * costs, 1.0, axis_name)

    def on_device(scale, costs):
        return jax.lax.pmean(jax.value_and_grad(term)(scale, costs, "devices"), "devices")

    whole = jax.jit(jax.value_and_grad(term))(1.5, COSTS)
    many = jax.pmap(on_device, "devices", in_axes=(None, 0))(1.5, COSTS.reshape(4, 2, 3, K))
    np.testing.assert_allclose([leaf[0] for leaf in many], whole, rtol=1e-5)
    # Not the mean over the devices of their own entropies.
    own = np.mean(jax.jit(jax.vmap(term, (None, 0)))(1.5, COSTS.reshape(4, 2, 3, K)))
    assert abs(own - float(whole[0])) > 1e-3
