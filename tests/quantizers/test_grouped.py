"""Grouped codes: each group is quantized as if it were all there is, with a codebook of its own or one for all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.quantizers import CodebookOptions, LatentOptions, make_quantizer
from hvq_jax.quantizers.assignment import nearest_codes
from tests.quantizers.compiled import compiled

K, D, G = 5, 6, 3
METHODS = {
    "ema": {},
    "ema from clusters": {"init": "kmeans"},
    "gradient of unit norm": {"learning": "gradient", "init": "uniform", "unit_norm": "both"},
    "simvq": {"learning": "simvq", "assignment": "cosine"},
}


def quantizer(groups=G, estimator="straight_through", **options):
    latent_options = LatentOptions(mode="vq", num_codes=K, dim=D, estimator=estimator)
    return compiled(make_quantizer(latent_options, CodebookOptions(family="grouped", groups=groups, **options)))


def vectors(seed=1, dim=D):
    return jax.random.normal(jax.random.key(seed), (40, 2, dim))


def trained(model, z_e, steps=3):
    """Return params, state, latent and step after a few steps, without gradients."""
    params, state = model.init(jax.random.key(0))
    if model.starts_from_data:
        params, state = model.start_from_data(params, state, z_e, jax.random.key(1), None)
    for number in range(steps):
        latent, step = model.step(params, state, z_e, jax.random.key(2 + number), None)
        state = step.state
    return params, state, latent, step


@pytest.mark.optimised
@pytest.mark.parametrize(("method", "shared"), [("ema", False), ("ema", True), ("gradient of unit norm", False)])
def test_one_group_is_one_codebook_bit_for_bit(method, shared):
    grouped = quantizer(1, share_codes=shared, **METHODS[method])
    plain = make_quantizer(grouped.latent_options, CodebookOptions(**METHODS[method]))
    z_e = plain.normalise(vectors())
    np.testing.assert_array_equal(grouped.normalise(vectors()), z_e)
    both = (jax.jit(lambda z, model=model: trained(model, z))(z_e) for model in (grouped, plain))
    (params, state, latent, step), expected = both
    one = jax.tree.map(lambda leaf: leaf[0], (params, state, step.codes, step.counts))
    jax.tree.map(np.testing.assert_array_equal, one, (*expected[:2], expected[3].codes, expected[3].counts))
    for name in ("z_bar", "z_q", "discrete"):
        np.testing.assert_array_equal(getattr(latent, name), getattr(expected[2], name))
    for name in ("indices", "gain"):
        np.testing.assert_array_equal(getattr(latent, name)[..., 0], getattr(expected[2], name))


@pytest.mark.parametrize("method", METHODS)
def test_each_group_is_nearest_among_its_codes_and_decodes_to_them(method):
    model = quantizer(**METHODS[method])
    z_e = model.normalise(vectors())
    params, state, _, step = trained(model, z_e)
    codes = model.codes(params, state)
    assert codes.shape == (G, K, D // G)
    assert step.counts.shape == step.state.frequency.shape == (G, K)
    np.testing.assert_array_equal(step.counts.sum(-1), np.full(G, 80))
    latent = model.quantize(params, state, z_e)
    assert latent.indices.shape == (40, 2, G) == (40, 2, *model.index_shape)
    assignment = model.codebook_options.assignment
    for group in range(G):
        part = z_e[..., 2 * group : 2 * group + 2]
        np.testing.assert_array_equal(latent.indices[..., group], nearest_codes(part, codes[group], assignment))
        np.testing.assert_array_equal(
            latent.z_q[..., 2 * group : 2 * group + 2], codes[group][latent.indices[..., group]]
        )
    np.testing.assert_array_equal(latent.z_bar, latent.z_q)
    np.testing.assert_array_equal(model.vectors(params, state, latent.indices), latent.z_q)


def test_groups_do_not_see_each_other():
    """Another group's channels change neither codes nor indices of a group."""
    model, z_e = quantizer(), vectors()
    other = z_e.at[..., 2:].set(7 * vectors(9)[..., 2:])
    (_, state, latent, _), (_, changed, moved, _) = trained(model, z_e), trained(model, other)
    ours, theirs = (jax.tree.map(lambda leaf: leaf[0], each) for each in (state, changed))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    np.testing.assert_array_equal(latent.indices[..., 0], moved.indices[..., 0])
    assert not np.array_equal(latent.indices[..., 1], moved.indices[..., 1])


def test_a_shared_codebook_learns_from_the_groups_of_all_positions():
    model, z_e = quantizer(share_codes=True), vectors()
    params, state, latent, step = trained(model, z_e)
    groups = z_e.reshape(40, 2, G, D // G)
    options = dataclasses.replace(model.latent_options, dim=D // G)
    *expected, alone, _ = trained(compiled(make_quantizer(options, CodebookOptions())), groups)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[0], y, rtol=1e-6), (params, state), tuple(expected))
    np.testing.assert_array_equal(latent.indices, alone.indices)
    codes = model.codes(params, state)
    assert codes.shape == (G, K, D // G)
    np.testing.assert_array_equal(codes, np.stack([codes[0]] * G))
    assert step.counts.sum() == 40 * 2 * G


@pytest.mark.parametrize("shared", [False, True])
def test_the_entropy_term_is_the_sum_of_those_of_the_groups(shared):
    model, z_e = quantizer(share_codes=shared, learning="gradient", init="uniform"), vectors()
    *_, step = trained(model, z_e, steps=1)
    total = 0.0
    groups = z_e.reshape(40, 2, G, D // G)
    for group, codes in enumerate(step.codes):
        part = groups if shared else groups[..., group, :]
        total += compiled(model.one).entropy(part, dataclasses.replace(step, codes=codes), 0.5, None)
    np.testing.assert_allclose(model.entropy(z_e, step, 0.5, None), total, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_the_gradient_of_a_group_is_that_of_one_codebook(estimator):
    model = quantizer(estimator=estimator)
    params, state, *_ = trained(model, vectors())
    one = jax.tree.map(lambda leaf: leaf[1], (params, state))
    z_e = vectors(5)[0, 0]
    jacobian = jax.jit(jax.jacobian(lambda z: model.quantize(params, state, z).z_bar))(z_e)
    alone = jax.jit(jax.jacobian(lambda z: model.one.quantize(*one, z).z_bar))(z_e[2:4])
    np.testing.assert_allclose(jacobian[2:4, 2:4], alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(jacobian[2:4, :2], np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("latent", "codebook", "message"),
    [
        ({}, {"groups": 4}, "codebook.groups=4: must divide latent.dim=6"),
        ({"mode": "projected"}, {}, "latent.mode=projected: codebook.family=grouped needs latent.mode=vq"),
        ({}, {"assignment": "projection"}, "codebook.assignment=projection: chooses codes up to their sign"),
        ({}, {"learning": "gradient", "decay": 0.5}, "codebook.decay=0.5: codebook.learning=gradient has no such"),
    ],
)
def test_what_does_not_fit_is_refused(latent, codebook, message):
    with pytest.raises(ValueError, match=message):
        make_quantizer(
            LatentOptions(**{"mode": "vq", "dim": D, **latent}), CodebookOptions(family="grouped", **codebook)
        )


def test_more_groups_leave_less():
    z_e = vectors()
    errors = []
    for groups in (1, 6):
        params, state, *_ = trained(quantizer(groups), z_e, steps=1)
        errors.append(float(jnp.mean(jnp.square(quantizer(groups).quantize(params, state, z_e).z_q - z_e))))
    assert errors[0] > 2 * errors[1]
