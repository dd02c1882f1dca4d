"""Quantization to bits: the nearest corner, indices that decode to what was seen, the papers' entropies."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hvq_jax.losses import LossOptions, entropy_term, losses_per_image
from hvq_jax.quantizers import CodebookOptions, LatentOptions, make_quantizer
from hvq_jax.quantizers.assignment import code_costs, nearest_codes
from hvq_jax.quantizers.binary import bits_to_indices, indices_to_bits
from tests.quantizers.compiled import compiled

D, BITS = 5, 4


def quantizer(family, bits=BITS):
    return compiled(make_quantizer(LatentOptions(mode="vq", dim=D), CodebookOptions(family=family, bits=bits)))


def corners(family, bits=BITS):
    """Return all codes `[K, L]`, the first number changing fastest."""
    signs = np.array([code[::-1] for code in itertools.product((-1.0, 1.0), repeat=bits)], np.float32)
    return signs if family == "lfq" else signs / np.float32(math.sqrt(bits))


@pytest.fixture(scope="module")
def z_e():
    return 3 * jax.random.normal(jax.random.key(1), (2, 3, 3, D))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 2**30 - 1), min_size=4, max_size=4))
def test_bits_and_indices_are_inverse(indices):
    bits = indices_to_bits(jnp.array(indices, jnp.int32), 30)
    assert bits_to_indices(bits).dtype == jnp.int32
    np.testing.assert_array_equal(bits_to_indices(bits), indices)
    rows = ["".join("01"[int(bit)] for bit in row) for row in bits.tolist()]
    assert rows == [f"{index:030b}"[::-1] for index in indices]


@pytest.mark.parametrize("family", ["lfq", "bsq"])
@settings(max_examples=20)
@given(numbers=st.lists(st.floats(-4, 4, width=32).filter(bool), min_size=BITS, max_size=BITS))
def test_the_signs_are_the_nearest_of_all_corners(family, numbers):
    rounded, index = quantizer(family).round(jnp.array(numbers, jnp.float32))
    codes = corners(family)
    assert np.square(np.float64(numbers) - codes[index]).sum() == np.square(np.float64(numbers) - codes).sum(-1).min()
    np.testing.assert_array_equal(rounded, codes[index])
    if family == "bsq":
        assert np.linalg.norm(rounded) == pytest.approx(1, rel=1e-6)


def test_zero_is_the_lower_half():
    assert quantizer("lfq").round(jnp.zeros(BITS))[1] == 0


@pytest.mark.parametrize("family", ["lfq", "bsq"])
def test_the_numbers_are_a_linear_map_and_for_bsq_its_direction(family, z_e):
    model = quantizer(family)
    params, state = model.init(jax.random.key(0))
    latent = model.quantize(params, state, z_e)
    numbers = np.float64(z_e) @ np.float64(params["down"]["kernel"])
    if family == "bsq":
        numbers /= np.linalg.norm(numbers, axis=-1, keepdims=True)
    np.testing.assert_allclose(latent.numbers, numbers, atol=1e-5)
    np.testing.assert_array_equal(latent.indices, nearest_codes(latent.numbers, corners(family)))
    np.testing.assert_allclose(
        latent.z_q, corners(family)[latent.indices] @ np.float64(params["up"]["kernel"]), atol=1e-5
    )


@pytest.mark.optimised
@pytest.mark.parametrize("family", ["lfq", "bsq"])
def test_decoding_indices_is_the_forward_pass_bit_for_bit(family, z_e):
    """By all codes and by the vectors of a few indices, compiled or not."""
    model = make_quantizer(quantizer(family).latent_options, quantizer(family).codebook_options)
    params, state = jax.jit(model.init)(jax.random.key(0))
    params["up"]["bias"] = jax.random.normal(jax.random.key(3), (D,))
    latent = jax.jit(model.quantize)(params, state, z_e)
    np.testing.assert_array_equal(latent.z_bar, latent.z_q)
    assert len(np.unique(latent.indices)) > 8
    np.testing.assert_array_equal(model.quantize(params, state, z_e).z_bar, latent.z_bar)
    for decode in (model.vectors, jax.jit(model.vectors), lambda *args: jax.jit(model.codes)(*args[:2])[args[2]]):
        np.testing.assert_array_equal(decode(params, state, latent.indices), latent.z_bar)
        np.testing.assert_array_equal(decode(params, state, latent.indices[0, 0, :1]), latent.z_bar[0, 0, :1])


@pytest.mark.parametrize("family", ["lfq", "bsq"])
def test_gradients_pass_the_signs_as_they_are_and_reach_both_maps(family):
    """d z_bar / d z_e = d numbers / d z_e · up, and the map up sees the code."""
    model = quantizer(family)
    params, state = model.init(jax.random.key(0))
    vector = jax.random.normal(jax.random.key(1), (D,))
    down, up = (np.asarray(params[name]["kernel"], np.float64) for name in ("down", "up"))
    lowered = np.float64(vector) @ down
    tangent = np.eye(BITS)
    if family == "bsq":
        direction = lowered / np.linalg.norm(lowered)
        tangent = (np.eye(BITS) - np.outer(direction, direction)) / np.linalg.norm(lowered)
    jacobian = jax.jit(jax.jacobian(lambda z: model.quantize(params, state, z).z_bar))(vector)
    np.testing.assert_allclose(jacobian, (down @ tangent @ up).T, rtol=1e-4, atol=1e-5)
    gradients = jax.jit(jax.grad(lambda params: jnp.sum(model.quantize(params, state, vector).z_bar)))(params)
    code = corners(family)[model.quantize(params, state, vector).indices]
    np.testing.assert_allclose(gradients["up"]["kernel"], np.outer(code, np.ones(D)), atol=1e-6)


@pytest.mark.parametrize("family", ["lfq", "bsq"])
def test_numbers_are_committed_to_their_codes(family, z_e):
    model = quantizer(family)
    params, state = model.init(jax.random.key(0))

    @jax.jit
    def commitment(params):
        images = jnp.zeros((2, 4, 4, 1))
        return losses_per_image(images, images, z_e, model.quantize(params, state, z_e)).commitment

    latent = model.quantize(params, state, z_e)
    errors = np.square(latent.numbers - corners(family)[latent.indices])
    np.testing.assert_allclose(commitment(params), errors.mean(axis=(1, 2, 3)), rtol=1e-5)
    gradients = jax.jit(jax.grad(lambda params: commitment(params).sum()))(params)
    assert np.abs(gradients["down"]["kernel"]).max() > 0
    assert not np.any(gradients["up"]["kernel"])


def entropies(model, temperature, z_e, mask=None):
    params, state = model.init(jax.random.key(0))
    _, step = model.step(params, state, z_e, jax.random.key(2), None, mask)
    return model.entropy(z_e, step, temperature, None, mask), step.numbers


def bit_entropy(p):
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))


def test_the_entropy_term_of_lfq_is_that_of_all_codes(z_e):
    term, numbers = entropies(quantizer("lfq"), 2.0, z_e)
    assert float(term) == pytest.approx(float(entropy_term(code_costs(numbers, corners("lfq")), 2.0)), rel=1e-5)


@pytest.mark.parametrize("family", ["lfq", "bsq"])
def test_the_entropy_of_a_vector_is_the_sum_over_its_bits(family, z_e):
    """So is, for bsq, that of the codebook: Σ H(E[p_i]) with p_i = σ(2 τ |code_i| u_i), τ = 2 / temperature."""
    bits, temperature, model = 11, 4.0, quantizer(family, 11)
    term, numbers = entropies(model, temperature, z_e)
    numbers = np.asarray(numbers, np.float64).reshape(-1, bits)
    p = 1 / (1 + np.exp(-2 * (2 / temperature) * model.scale * numbers))
    each = bit_entropy(p).sum(-1).mean()
    if family == "bsq":
        of_codebook = bit_entropy(p.mean(0)).sum()
    else:  # of nine bits together, and of the other two
        of_codebook = 0.0
        for part in (p[:, :9], p[:, 9:]):
            ones = corners("lfq", part.shape[1]) > 0
            joint = np.where(ones, part[:, None], 1 - part[:, None]).prod(-1).mean(0)
            of_codebook -= (joint * np.log(joint)).sum()
        assert of_codebook < bit_entropy(p.mean(0)).sum()
    assert float(term) == pytest.approx(each - of_codebook, rel=1e-4)


@pytest.mark.parametrize("family", ["lfq", "bsq"])
def test_a_step_of_eighteen_bits_makes_no_array_of_vectors_by_codes(family):
    """At most [K, D], the codes, or of vectors by the 512 codes of nine bits."""
    model, z_e = quantizer(family, 18), jnp.ones((2, 7, 7, D))
    params, state = model.init(jax.random.key(0))

    def loss(params, z_e):
        latent, step = model.step(params, state, z_e, jax.random.key(1), None)
        return jnp.sum(latent.z_bar) + model.entropy(z_e, step, 1.0, None), (latent, step.counts)

    sizes = {math.prod(var.aval.shape) for var in variables(jax.make_jaxpr(jax.grad(loss, has_aux=True))(params, z_e))}
    assert max(sizes) <= 18 * 2**18 < 98 * 2**18
    assert {size for size in sizes if size % 2**18} <= set(range(98 * 512 + 1))


def variables(jaxpr):
    for equation in jaxpr.eqns:
        yield from equation.outvars
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(value, "eqns"):
                yield from variables(value)


@pytest.mark.parametrize("options", [{"mode": "projected"}, {"estimator": "rotation"}])
@pytest.mark.parametrize("family", ["lfq", "bsq", "residual_fsq"])
def test_other_latents_and_estimators_are_refused(family, options):
    options = {"mode": "vq", **options}
    with pytest.raises(ValueError, match=rf"latent\.\w+=(projected|rotation): codebook.family={family} needs"):
        make_quantizer(LatentOptions(**options), CodebookOptions(family=family, depth=2 if "_" in family else 1))


def test_bits_are_an_option_of_these_alone():
    with pytest.raises(ValueError, match=r"codebook.bits=4: codebook.family=codebook has no such option.*lfq\|bsq"):
        make_quantizer(LatentOptions(), CodebookOptions(bits=4))
    with pytest.raises(ValueError, match="bits=31: must be from 1 to 30"):
        CodebookOptions(bits=31)
    assert quantizer("lfq", 30).num_codes == 2**30 <= 2**31 - 1
    assert LossOptions().entropy_weight == 0
