"""The identities of the mathematics: bit for bit where they are exact, to rounding where they are not."""

import chex
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_jax import latents
from hvq_jax.assignment import nearest_codes

K, D = 6, 4
SHAPES = [(), (5,), (2, 3), (2, 3, 2)]

finite = st.floats(-4, 4, width=32).map(lambda x: x if abs(x) > 2**-10 else 0.0)
vector = hnp.arrays(np.float32, D, elements=finite)
tables = hnp.arrays(np.float32, K, elements=st.integers(0, 9).map(float))


def inputs(shape=(2, 3, 3), seed=0):
    z_key, code_key = jax.random.split(jax.random.key(seed))
    return jax.random.normal(z_key, (*shape, D)), jax.random.normal(code_key, (K, D))


def latent(mode, z_e, codebook, frequent=None, gradient="straight_through"):
    indices = nearest_codes(z_e, codebook)
    frequent = jnp.arange(K) < 3 if frequent is None else frequent
    return latents.hybrid_latent(z_e, codebook, indices, frequent, mode=mode, projection_gradient=gradient)


class ShapesAndTransforms(chex.TestCase):
    @chex.all_variants(with_pmap=True)
    def test_hybrid_latent_is_the_same_function_under_every_transform(self):
        z_e, codebook = inputs()
        for mode in latents.MODES:
            plain = latent(mode, z_e, codebook)
            z_bar = self.variant(lambda z, c, mode=mode: latent(mode, z, c).z_bar)(z_e, codebook)
            # jit may fuse the products of the projection: a unit in the last place.
            np.testing.assert_allclose(z_bar, plain.z_bar, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", latents.MODES)
def test_any_leading_shape(mode, shape):
    z_e, codebook = inputs(shape)
    whole = latent(mode, z_e, codebook)
    chex.assert_shape([whole.z_bar, whole.z_q, whole.projection], (*shape, D))
    chex.assert_shape([whole.indices, whole.gain], shape)
    chex.assert_shape(whole.discrete, (*shape, 1))
    rows = jax.vmap(lambda z: latent(mode, z, codebook).z_bar)(z_e.reshape(-1, D))
    np.testing.assert_allclose(whole.z_bar.reshape(-1, D), rows, rtol=1e-6, atol=1e-6)


@given(vector, vector)
def test_straight_through_has_the_value_exactly_and_the_gradient_of_z_e(z_e, value):
    out, pullback = jax.vjp(latents.straight_through, jnp.asarray(z_e), jnp.asarray(value))
    np.testing.assert_array_equal(out, value)
    to_z_e, to_value = pullback(jnp.arange(1.0, D + 1))
    np.testing.assert_array_equal(to_z_e, np.arange(1.0, D + 1))
    np.testing.assert_array_equal(to_value, np.zeros(D))


def test_straight_through_is_exact_where_the_other_form_is_not():
    z_e, code = jnp.float32(1.0), jnp.float32(1e-9)
    assert latents.straight_through(z_e, code) == code
    assert z_e + (code - z_e) != code


def norm(x):
    return float(np.linalg.norm(x))


@given(vector, vector, st.floats(0.1, 5).flatmap(lambda c: st.sampled_from([c, -c])))
def test_projection_identities(z_e, code, scale):
    projection = np.asarray(latents.project(z_e, code))
    gain = float(latents.gain(z_e, code))
    if norm(code) ** 2 < latents.EPSILON:
        np.testing.assert_array_equal(projection, np.zeros(D))
        return
    # Each is exact in real numbers; the bound is a few roundings of the largest quantity in it.
    tolerance = 1e-5 * max(norm(z_e), 1e-3)
    np.testing.assert_allclose(latents.project(projection, code), projection, atol=tolerance)
    np.testing.assert_allclose(latents.project(z_e, np.float32(scale) * code), projection, atol=tolerance)
    assert abs((z_e - projection) @ code) <= tolerance * norm(code)
    pythagoras = norm(z_e - projection) ** 2 + (gain - 1) ** 2 * norm(code) ** 2
    largest = (norm(z_e) + norm(code)) ** 2
    np.testing.assert_allclose(norm(z_e - code) ** 2, pythagoras, atol=1e-5 * max(largest, 1e-3))
    signed_length = float(latents.signed_length(z_e, code))
    np.testing.assert_allclose(signed_length * code / norm(code), projection, atol=tolerance)
    np.testing.assert_allclose(abs(signed_length), norm(projection), atol=tolerance)


@pytest.mark.parametrize("gradient", latents.PROJECTION_GRADIENTS)
def test_a_zero_code_gives_zero_and_finite_gradients(gradient):
    project = latents.PROJECTION_GRADIENTS[gradient]
    z_e, code = jnp.arange(1.0, D + 1), jnp.zeros(D)
    value, pullback = jax.vjp(project, z_e, code)
    np.testing.assert_allclose(value, np.zeros(D), atol=1e-6)
    chex.assert_tree_all_finite(pullback(jnp.ones(D)))


@settings(max_examples=30)
@given(vector.filter(lambda v: norm(v) > 0.1), vector.filter(lambda v: norm(v) > 0.1), vector)
def test_projection_gradients_are_what_the_mathematics_says(z_e, code, g):
    """With u = e/|e| and r = z - P: dP/dz = u uᵀ, dP/de = α (I - u uᵀ) + e rᵀ/|e|²."""
    unit, alpha = code / norm(code), (z_e @ code) / norm(code) ** 2
    residual = z_e - alpha * code
    along = unit * (unit @ g)
    to_code = alpha * (g - along) + (code @ g) * residual / norm(code) ** 2
    expected = {
        "both": (along, to_code),
        "both_through_st": (along + to_code, np.zeros(D)),
        "encoder": (along, np.zeros(D)),
        "straight_through": (g, np.zeros(D)),
    }
    for name, (to_z_e_expected, to_code_expected) in expected.items():
        value, pullback = jax.vjp(latents.PROJECTION_GRADIENTS[name], z_e, code)
        to_z_e, to_code_found = pullback(jnp.asarray(g))
        # both_through_st rebuilds the code as z + (e - z), which costs |z|/|e| roundings.
        bound = 1e-5 * (1 + norm(g)) * (1 + norm(z_e) / norm(code)) ** 2
        np.testing.assert_allclose(value, alpha * code, atol=1e-5 * (1 + norm(z_e)) ** 2)
        np.testing.assert_allclose(to_z_e, to_z_e_expected, atol=bound, err_msg=name)
        np.testing.assert_allclose(to_code_found, to_code_expected, atol=bound, err_msg=name)


@given(tables, st.integers(0, K))
def test_frequent_codes_by_number(table, number):
    frequent = np.asarray(latents.frequent_codes(jnp.asarray(table), num_frequent=number))
    if table.sum() == 0:
        assert frequent.all()
        return
    expected = sorted(range(K), key=lambda j: (-table[j], j))[:number]
    assert set(np.flatnonzero(frequent)) == set(expected)


@given(tables, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_frequent_codes_by_mass(table, mass):
    frequent = np.asarray(latents.frequent_codes(jnp.asarray(table), frequent_mass=mass))
    if table.sum() == 0:
        assert frequent.all()
        return
    before, expected = 0.0, set()
    for j in sorted(range(K), key=lambda j: (-table[j], j)):
        if before < mass * table.sum():
            expected.add(j)
        before += table[j]
    assert set(np.flatnonzero(frequent)) == expected


def test_exactly_one_rule_for_frequent_codes():
    with pytest.raises(ValueError, match="exactly one"):
        latents.frequent_codes(jnp.ones(K))
    with pytest.raises(ValueError, match="exactly one"):
        latents.frequent_codes(jnp.ones(K), num_frequent=1, frequent_mass=0.5)


@pytest.mark.usefixtures("optimised")
class Limits(chex.TestCase):
    @chex.all_variants(with_pmap=True)
    def test_limits_hold_bit_for_bit(self):
        z_e, codebook = inputs((4, 5, 5))

        def z_bar(mode, num_frequent=3):
            def function(z_e, codebook):
                frequent = latents.frequent_codes(jnp.arange(1.0, K + 1), num_frequent=num_frequent)
                return latent(mode, z_e, codebook, frequent).z_bar

            return self.variant(function)(z_e, codebook)

        np.testing.assert_array_equal(z_bar("frequency", K), z_bar("vq"))
        np.testing.assert_array_equal(z_bar("combined", K), z_bar("vq"))
        np.testing.assert_array_equal(z_bar("combined", 0), z_bar("projected"))
        np.testing.assert_array_equal(z_bar("frequency", 0), z_e)


def test_each_mode_shows_the_decoder_what_its_formula_says():
    z_e, codebook = inputs((4, 5, 5))
    frequent = jnp.arange(K) % 2 == 0
    indices = nearest_codes(z_e, codebook)
    z_q = codebook[indices]
    mask = np.asarray(frequent)[indices][..., None]
    assert 0 < mask.mean() < 1
    projection = latents.project(z_e, z_q)
    expected = {
        "vq": z_q,
        "projected": projection,
        "frequency": np.where(mask, z_q, z_e),
        "combined": np.where(mask, z_q, projection),
    }
    for mode, z_bar in expected.items():
        np.testing.assert_array_equal(latent(mode, z_e, codebook, frequent).z_bar, z_bar)
    np.testing.assert_array_equal(latents.frequency_mask(indices, frequent), mask)


def test_reconstruction_never_reaches_the_codebook_through_plain_codes():
    z_e, codebook = inputs((4, 5, 5))
    frequent = jnp.arange(K) < 3

    def decoded(codebook, mode, gradient):
        return jnp.sum(jnp.sin(latent(mode, z_e, codebook, frequent, gradient).z_bar))

    leak = {
        (mode, gradient): np.abs(jax.grad(decoded)(codebook, mode, gradient)).sum(1)
        for mode in latents.MODES
        for gradient in latents.PROJECTION_GRADIENTS
    }
    used = np.isin(np.arange(K), nearest_codes(z_e, codebook))
    assert used.sum() >= K - 1
    for (mode, gradient), size in leak.items():
        if gradient == "both" and mode == "projected":
            np.testing.assert_array_equal(size > 0, used)
        elif gradient == "both" and mode == "combined":
            np.testing.assert_array_equal(size > 0, used & ~np.asarray(frequent))
        else:
            np.testing.assert_array_equal(size, np.zeros(K))


def test_decoding_codes_is_the_forward_pass_of_vq():
    z_e, codebook = inputs((4, 5, 5))
    whole = latent("vq", z_e, codebook)
    np.testing.assert_array_equal(latents.latent_from_codes(whole.indices, codebook), whole.z_bar)
    projected = latent("projected", z_e, codebook)
    by_gain = latents.latent_from_codes(projected.indices, codebook, projected.gain)
    np.testing.assert_array_equal(by_gain, projected.z_bar)
