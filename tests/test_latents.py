"""The identities of the mathematics: bit for bit where they are exact, to rounding where they are not."""

import functools
from fractions import Fraction

import chex
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from hvq_jax import latents
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import CODE, PROJECTION, Z_E, Latent
from hvq_jax.quantizers.assignment import nearest_codes

K, D = 6, 4
SHAPES = [(), (5,), (2, 3), (2, 3, 2)]

finite = st.floats(-4, 4, width=32).map(lambda x: x if abs(x) > 2**-10 else 0.0)
vector = hnp.arrays(np.float32, D, elements=finite)
tables = hnp.arrays(np.float32, K, elements=st.integers(0, 9).map(float))


def inputs(shape=(2, 3, 3), seed=0):
    z_key, code_key = jax.random.split(jax.random.key(seed))
    return jax.random.normal(z_key, (*shape, D)), jax.random.normal(code_key, (K, D))


def latent(mode, z_e, codes, frequent=None, gradient="straight_through"):
    indices = nearest_codes(z_e, codes)
    frequent = jnp.arange(K) < 3 if frequent is None else frequent
    return latents.hybrid_latent(z_e, codes, indices, frequent, mode=mode, projection_gradient=gradient)


@functools.cache
def value_and_pullback(function):
    """Return `function`'s value and the cotangents of its two arguments, as a compiled function of these and that."""

    @jax.jit
    def compiled(z_e, other, cotangent):
        value, pullback = jax.vjp(function, z_e, other)
        return value, pullback(cotangent)

    return compiled


class ShapesAndTransforms(chex.TestCase):
    # Over devices: test_autoencoder.py.
    @chex.variants(with_jit=True, without_jit=True)
    def test_hybrid_latent_is_the_same_function_under_every_transform(self):
        z_e, codes = inputs()
        for mode in latents.LATENTS:
            plain = latent(mode, z_e, codes)
            z_bar = self.variant(lambda z, c, mode=mode: latent(mode, z, c).z_bar)(z_e, codes)
            # jit may fuse the products of the projection: a unit in the last place.
            np.testing.assert_allclose(z_bar, plain.z_bar, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_leading_shape(shape):
    z_e, codes = inputs(shape)

    @jax.jit
    def whole_and_rows(z_e):
        of_rows = {mode: jax.vmap(lambda z, mode=mode: latent(mode, z, codes).z_bar) for mode in latents.LATENTS}
        return {mode: (latent(mode, z_e, codes), rows(z_e.reshape(-1, D))) for mode, rows in of_rows.items()}

    for whole, rows in whole_and_rows(z_e).values():
        chex.assert_shape([whole.z_bar, whole.z_q, whole.projection], (*shape, D))
        chex.assert_shape([whole.indices, whole.gain], shape)
        chex.assert_shape([whole.discrete, whole.projected], (*shape, 1))
        np.testing.assert_allclose(whole.z_bar.reshape(-1, D), rows, rtol=1e-6, atol=1e-6)


@given(vector, vector)
def test_straight_through_has_the_value_exactly_and_the_gradient_of_z_e(z_e, value):
    cotangent = np.arange(1.0, D + 1, dtype=np.float32)
    out, (to_z_e, to_value) = value_and_pullback(latents.straight_through)(z_e, value, cotangent)
    np.testing.assert_array_equal(out, value)
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
        value, (to_z_e, to_code_found) = value_and_pullback(latents.PROJECTION_GRADIENTS[name])(z_e, code, g)
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


any_count = st.sampled_from([0.0, 1.0, 2.0, 3.0]) | st.floats(2**-10, 2**30, width=32)
any_mass = st.floats(0, 1, width=32, allow_subnormal=False) | st.sampled_from([0.0, 1e-9, 0.5, 0.9, 0.999999, 1.0])


@given(hnp.arrays(np.float32, 12, elements=any_count), any_mass)
@example(np.array([3e7, 1, 1], np.float32), 1.0)
@example(np.array([3e7, 1, 1], np.float32), 1e-9)
def test_frequent_codes_by_mass_are_those_of_exact_arithmetic(table, mass):
    """Beyond 2**24 float32 no longer holds every count; only what is within its rounding of the limit may differ."""
    frequent = np.asarray(latents.frequent_codes(jnp.asarray(table), frequent_mass=mass))
    exact = [Fraction(float(value)) for value in table]
    total, before = sum(exact), Fraction(0)
    limit = Fraction(mass) * total
    for j in sorted(range(len(table)), key=lambda j: (-table[j], j)):
        if mass == 1 or abs(before - limit) > 1e-5 * min(limit, total - limit):
            assert frequent[j] == (before < limit or total == 0)
        before += exact[j]


def test_exactly_one_rule_for_frequent_codes():
    with pytest.raises(ValueError, match="exactly one"):
        latents.frequent_codes(jnp.ones(K))
    with pytest.raises(ValueError, match="exactly one"):
        latents.frequent_codes(jnp.ones(K), num_frequent=1, frequent_mass=0.5)


@pytest.mark.optimised
class Limits(chex.TestCase):
    # Over devices: test_autoencoder.py.
    @chex.variants(with_jit=True, without_jit=True)
    def test_limits_hold_bit_for_bit(self):
        z_e, codes = inputs((4, 5, 5))

        def z_bar(mode, num_frequent=3):
            def function(z_e, codes):
                frequent = latents.frequent_codes(jnp.arange(1.0, K + 1), num_frequent=num_frequent)
                return latent(mode, z_e, codes, frequent).z_bar

            return self.variant(function)(z_e, codes)

        np.testing.assert_array_equal(z_bar("frequency", K), z_bar("vq"))
        np.testing.assert_array_equal(z_bar("combined", K), z_bar("vq"))
        np.testing.assert_array_equal(z_bar("combined", 0), z_bar("projected"))
        np.testing.assert_array_equal(z_bar("frequency", 0), z_e)


def test_each_mode_shows_the_decoder_what_its_formula_says():
    z_e, codes = inputs((4, 5, 5))
    frequent = jnp.arange(K) % 2 == 0
    indices = nearest_codes(z_e, codes)
    z_q = codes[indices]
    mask = np.asarray(frequent)[indices][..., None]
    assert 0 < mask.mean() < 1
    projection = latents.project(z_e, z_q)
    expected = {
        "vq": z_q,
        "projected": projection,
        "frequency": np.where(mask, z_q, z_e),
        "combined": np.where(mask, z_q, projection),
    }
    everywhere, nowhere = np.ones_like(mask), np.zeros_like(mask)
    discrete_and_projected = {
        "vq": (everywhere, nowhere),
        "projected": (nowhere, everywhere),
        "frequency": (mask, nowhere),
        "combined": (mask, ~mask),
    }
    assert set(expected) == set(discrete_and_projected) == set(latents.LATENTS)
    for mode, z_bar in expected.items():
        found = latent(mode, z_e, codes, frequent)
        np.testing.assert_array_equal(found.z_bar, z_bar)
        np.testing.assert_array_equal((found.discrete, found.projected), discrete_and_projected[mode])


def test_the_row_of_a_latent_says_which_codes_the_decoder_sees_as_what():
    frequent = jnp.arange(K) < 2
    for row in latents.LATENTS.values():
        parts = {part: np.asarray(row.codes_with(part, frequent)) for part in (CODE, PROJECTION, Z_E)}
        np.testing.assert_array_equal(sum(codes.astype(int) for codes in parts.values()), np.ones(K))
        assert parts[row.frequent][:2].all()
        assert parts[row.rare][2:].all()
        assert {part for part, codes in parts.items() if codes.any()} == {part for part in parts if row.uses(part)}
        assert row.masked == (row.frequent != row.rare)


def test_a_row_added_to_the_table_is_a_latent_with_its_own_masks(monkeypatch):
    monkeypatch.setitem(latents.LATENTS, "rare", Latent(frequent=PROJECTION, rare=CODE))
    z_e, codes = inputs((4, 5, 5))
    found = latent("rare", z_e, codes)
    rare = np.asarray(found.indices >= 3)[..., None]
    np.testing.assert_array_equal(found.discrete, rare)
    np.testing.assert_array_equal(found.projected, ~rare)
    np.testing.assert_array_equal(found.z_bar, np.where(rare, found.z_q, latents.project(z_e, found.z_q)))


def test_unknown_names_are_refused_with_the_known_ones():
    z_e, codes = inputs()
    indices, frequent = jnp.zeros(z_e.shape[:-1], jnp.int32), jnp.ones(K, bool)
    for options, message in [
        ({"mode": "hybrid"}, "mode=hybrid: choose one of vq, projected, frequency, combined"),
        (
            {"mode": "vq", "estimator": "straight"},
            "estimator=straight: choose one of straight_through, rotation, diveq",
        ),
        (
            {"mode": "vq", "projection_gradient": "decoder"},
            "projection_gradient=decoder: choose one of both, both_through_st, encoder, straight_through",
        ),
    ]:
        with pytest.raises(ArgumentError) as error:
            latents.hybrid_latent(z_e, codes, indices, frequent, **options)
        assert str(error.value) == message
    with pytest.raises(ArgumentError, match="rare=zero: choose one of code, projection, z_e"):
        Latent(frequent=CODE, rare="zero")


def test_reconstruction_never_reaches_the_codebook_through_plain_codes():
    z_e, codes = inputs((4, 5, 5))
    frequent = jnp.arange(K) < 3

    def decoded(codes, mode, gradient):
        return jnp.sum(jnp.sin(latent(mode, z_e, codes, frequent, gradient).z_bar))

    @jax.jit
    def all_leaks(codes):
        return {
            (mode, gradient): jnp.abs(jax.grad(decoded)(codes, mode, gradient)).sum(1)
            for mode in latents.LATENTS
            for gradient in latents.PROJECTION_GRADIENTS
        }

    leak = jax.device_get(all_leaks(codes))
    used = np.isin(np.arange(K), nearest_codes(z_e, codes))
    assert used.sum() >= K - 1
    for (mode, gradient), size in leak.items():
        if gradient == "both" and mode == "projected":
            np.testing.assert_array_equal(size > 0, used)
        elif gradient == "both" and mode == "combined":
            np.testing.assert_array_equal(size > 0, used & ~np.asarray(frequent))
        else:
            np.testing.assert_array_equal(size, np.zeros(K))


def test_decoding_codes_is_the_forward_pass_of_vq():
    z_e, codes = inputs((4, 5, 5))
    whole = latent("vq", z_e, codes)
    np.testing.assert_array_equal(latents.latent_from_codes(whole.indices, codes), whole.z_bar)
    projected = latent("projected", z_e, codes)
    by_gain = latents.latent_from_codes(projected.indices, codes, projected.gain)
    np.testing.assert_array_equal(by_gain, projected.z_bar)


@given(vector, vector)
def test_rotation_has_the_value_exactly(z_e, value):
    cotangent = np.arange(1.0, D + 1, dtype=np.float32)
    out, (to_z_e, to_value) = value_and_pullback(latents.rotation)(z_e, value, cotangent)
    np.testing.assert_array_equal(out, value)
    assert np.isfinite(to_z_e).all()
    np.testing.assert_array_equal(to_value, np.zeros(D))


jacobian_of_rotation = jax.jit(jax.jacobian(latents.rotation))
long_enough = vector.filter(lambda v: norm(v) > 0.1)


@given(long_enough, long_enough)
def test_the_jacobian_of_rotation_turns_and_scales_the_vector_onto_its_code(z_e, value):
    jacobian = np.asarray(jacobian_of_rotation(z_e, value), np.float64)
    scale = norm(value) / norm(z_e)
    cosine = z_e @ value / norm(z_e) / norm(value)
    # Two vectors that are nearly opposite have no clear direction between them: its rounding is magnified.
    tolerance = 1e-5 / max(np.sqrt(1 + cosine), 1e-2)
    np.testing.assert_allclose(jacobian @ z_e, value, atol=tolerance * norm(value) + 1e-6)
    np.testing.assert_allclose(jacobian.T @ jacobian / scale**2, np.eye(D), atol=tolerance)
    if cosine > -0.999:
        np.testing.assert_allclose(np.linalg.det(jacobian / scale), 1.0, atol=10 * tolerance)  # no reflection
        # What is orthogonal to both vectors stays where it is.
        orthogonal = np.linalg.svd(np.stack([z_e, value]).astype(np.float64))[2][2:]
        np.testing.assert_allclose(orthogonal @ jacobian.T / scale, orthogonal, atol=10 * tolerance)


@pytest.mark.parametrize(("z_e", "code"), [([0, 0], [1, 2]), ([1, 2], [0, 0]), ([0, 0], [0, 0])])
def test_a_rotation_without_directions_is_straight_through(z_e, code):
    out, pullback = jax.vjp(latents.rotation, jnp.array(z_e, jnp.float32), jnp.array(code, jnp.float32))
    np.testing.assert_array_equal(out, code)
    np.testing.assert_array_equal(pullback(jnp.array([3.0, -1.0]))[0], [3, -1])


def test_an_opposite_code_is_reflected_onto():
    jacobian = jax.jacobian(latents.rotation)(jnp.array([2.0, 0]), jnp.array([-4.0, 0]))
    np.testing.assert_allclose(jacobian, [[-2, 0], [0, 2]], atol=1e-6)


def test_the_estimator_changes_gradients_only():
    z_e, codes = inputs((4, 5, 5))
    indices = nearest_codes(z_e, codes)

    def z_bar(z_e, estimator):
        options = {"mode": "combined", "estimator": estimator}
        return latents.hybrid_latent(z_e, codes, indices, jnp.arange(K) < 3, **options).z_bar

    np.testing.assert_array_equal(z_bar(z_e, "rotation"), z_bar(z_e, "straight_through"))
    gradients = [
        np.asarray(jax.jit(jax.grad(lambda z, e=estimator: jnp.sum(jnp.sin(z_bar(z, e)))))(z_e))
        for estimator in ("rotation", "straight_through")
    ]
    frequent = np.asarray(indices) < 3
    np.testing.assert_array_equal(gradients[0][~frequent], gradients[1][~frequent])
    assert (np.abs(gradients[0] - gradients[1])[frequent].max(-1) > 0).all()


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def in_groups_of(groups, mode="projected", gradient="both"):
    z_e, codes = inputs((4, 5))
    indices, frequent = nearest_codes(z_e, codes), jnp.arange(K) < 3
    options = {"mode": mode, "projection_gradient": gradient, "projection_groups": groups}
    return z_e, codes, latents.hybrid_latent(z_e, codes, indices, frequent, **options)


def test_one_group_is_the_projection_and_as_many_as_channels_give_the_vector_back():
    z_e, _, one = in_groups_of(1)
    np.testing.assert_array_equal(one.z_bar, latents.project(z_e, one.z_q))
    assert one.gain.shape == (4, 5)
    z_e, _, all_channels = in_groups_of(D)
    assert all_channels.gain.shape == (4, 5, D)
    np.testing.assert_allclose(all_channels.z_bar, z_e, rtol=1e-6)  # z e / e² · e: a few roundings


def test_each_group_is_projected_for_itself():
    z_e, codes, latent = in_groups_of(2)
    for part in (slice(0, 2), slice(2, 4)):
        expected = latents.project(z_e[..., part], latent.z_q[..., part])
        np.testing.assert_allclose(latent.z_bar[..., part], expected, rtol=1e-6)
    errors = [np.square(np.asarray(z_e - in_groups_of(groups)[2].z_bar)).sum() for groups in (1, 2, 4)]
    assert errors[0] > errors[1] > errors[2]
    decoded = latents.latent_from_codes(latent.indices, codes, latent.gain)
    np.testing.assert_array_equal(decoded, latent.z_bar)


@pytest.mark.parametrize("groups", [1, 2, D])
def test_the_gain_in_use_decodes_to_what_the_decoder_saw(groups):
    _, codes, latent = in_groups_of(groups, mode="combined", gradient="encoder")
    assert 0 < latent.discrete.mean() < 1
    decoded = latents.latent_from_codes(latent.indices, codes, latent.gain_seen)
    np.testing.assert_array_equal(decoded, latent.z_bar)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mode", ["vq", "frequency"])
def test_the_gain_in_use_is_one_where_the_decoder_does_not_see_the_projection(mode, groups):
    _, _, latent = in_groups_of(groups, mode)
    assert not latent.projected.any()
    assert (latent.gain != 1).any()
    np.testing.assert_array_equal(latent.gain_seen, np.ones(latent.gain.shape))


@given(vector)
def test_unit_vectors_have_length_one_and_zero_stays_zero_with_a_finite_gradient(x):
    value, pullback = jax.vjp(latents.unit, jnp.asarray(x))
    length = norm(x)
    np.testing.assert_allclose(value, x / length if length else x, atol=1e-6)
    assert np.isfinite(pullback(jnp.ones(D))[0]).all()
