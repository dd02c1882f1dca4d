"""The tokens of a latent, and the latent reconstructed from them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.errors import ArgumentError
from hvq_jax.latents import LATENTS, project, signed_length, split_channels
from hvq_jax.priors.bins import fit_bins
from hvq_jax.priors.options import TokenOptions
from hvq_jax.priors.tokens import (
    LARGEST_MULTIPLE,
    Parts,
    Tables,
    check_residuals,
    from_tokens,
    make_tables,
    to_parts,
    to_tokens,
)

K, D, SHAPE = 6, 4, (5, 3, 2)
RNG = np.random.default_rng(0)
CODEBOOK = jnp.asarray(RNG.normal(size=(K, D)), jnp.float32)
CODES = jnp.asarray(RNG.integers(K, size=SHAPE), jnp.int32)
Z_E = jnp.asarray(RNG.normal(size=(*SHAPE, D)), jnp.float32)
SOME = jnp.array([True, False, True, True, False, True])
NONE, ALL = jnp.zeros(K, bool), jnp.ones(K, bool)


encode = jax.jit(to_tokens)


@functools.partial(jax.jit, static_argnums=2)
def decode(tokens, tables, groups=1):
    return from_tokens(tokens, tables, CODEBOOK.__getitem__, groups)


@functools.partial(jax.jit, static_argnums=1)
def lengths_of(z_e, groups=1):
    lengths = signed_length(split_channels(z_e, groups), split_channels(CODEBOOK[CODES], groups))
    return lengths if groups > 1 else lengths[..., None]


def bins_of(num_bins, per_code=True, groups=1, where=None):
    chosen = np.asarray(SOME[CODES]) if where is None else where
    options = {"num_codes": K, "num_bins": num_bins, "per_code": per_code}
    return jnp.asarray(fit_bins(np.asarray(lengths_of(Z_E, groups))[chosen], np.asarray(CODES)[chosen], **options))


def test_plain_codes_are_themselves():
    tables = Tables(NONE, NONE)
    tokens = encode(Parts(CODES, lengths_of(Z_E), Z_E - CODEBOOK[CODES]), tables)
    assert tokens.shape == (*SHAPE, 1)
    latents, gains = decode(tokens, tables)
    np.testing.assert_array_equal(latents, CODEBOOK[CODES])
    np.testing.assert_array_equal(gains, np.ones(SHAPE))


@pytest.mark.parametrize("index_shape", [(), (1,), (3,), (2, 2)])
def test_several_codes_of_a_position_come_back_in_order(index_shape):
    indices = jnp.asarray(RNG.integers(K, size=(*SHAPE, *index_shape)), jnp.int32)
    tables = Tables(NONE, NONE, index_shape=index_shape)
    tokens = encode(Parts(indices), tables)
    assert tokens.shape == (*SHAPE, int(np.prod(index_shape)))
    np.testing.assert_array_equal(tokens.reshape(indices.shape), indices)
    np.testing.assert_array_equal(to_parts(tokens, tables).indices, indices)
    asked = []

    def vectors(indices):
        asked.append(indices)
        return CODEBOOK[indices].reshape(*SHAPE, -1, D).sum(axis=-2)

    latents, gains = from_tokens(tokens, tables, vectors)
    np.testing.assert_array_equal(asked, [indices])
    np.testing.assert_array_equal(latents, vectors(indices))
    np.testing.assert_array_equal(gains, np.ones(SHAPE))


@pytest.mark.parametrize("mode", ["projected", "frequency"])
def test_lengths_and_residuals_of_several_codes_are_refused(mode):
    indices = np.zeros((5, 1, 1, 2), int)
    with pytest.raises(ArgumentError, match=r"^index_shape=\(2,\): lengths and residuals need one code per position"):
        make_tables(LATENTS[mode], np.zeros(K, bool), indices, None, TokenOptions(), index_shape=(2,))


@pytest.mark.parametrize("groups", [1, 2])
def test_with_enough_bins_the_projection_is_transmitted(groups):
    tables = Tables(SOME, NONE, bins_of(64, groups=groups))
    tokens = encode(Parts(CODES, lengths_of(Z_E, groups)), tables)
    assert tokens.shape == (*SHAPE, 1 + groups)
    latents, _ = decode(tokens, tables, groups)
    projected = project(split_channels(Z_E, groups), split_channels(CODEBOOK[CODES], groups)).reshape(Z_E.shape)
    with_part = np.asarray(SOME[CODES])
    # Of 30 values each has a bin.
    np.testing.assert_allclose(latents[with_part], projected[with_part], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(latents[~with_part], CODEBOOK[CODES][~with_part])
    assert not tokens[~with_part, 1:].any()


@pytest.mark.parametrize("groups", [1, 2])
def test_with_one_bin_the_mean_gain_of_code_and_group_is_shown(groups):
    tables = Tables(ALL, NONE, bins_of(1, groups=groups, where=np.ones(SHAPE, bool)))
    _, gains = decode(CODES[..., None], tables, groups)
    exact = lengths_of(Z_E, groups) / np.linalg.norm(split_channels(CODEBOOK[CODES], groups), axis=-1).reshape(
        *SHAPE, groups
    )
    for code in range(K):
        there = np.asarray(CODES) == code
        mean = np.asarray(exact)[there].mean(axis=0)
        np.testing.assert_allclose(gains.reshape(*SHAPE, groups)[there], [mean] * there.sum(), rtol=1e-4, atol=1e-5)


def test_the_error_falls_with_the_number_of_bins():
    projected, with_part = project(Z_E, CODEBOOK[CODES]), SOME[CODES]
    errors = []
    for num_bins in (1, 2, 4, 8):
        tables = Tables(SOME, NONE, bins_of(num_bins))
        latents, _ = decode(encode(Parts(CODES, lengths_of(Z_E)), tables), tables)
        errors.append(float(jnp.square(latents - projected)[with_part].mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_one_bin_is_each_codes_mean_and_not_transmitted():
    tables = Tables(SOME, NONE, bins_of(1))
    tokens = encode(Parts(CODES, lengths_of(Z_E)), tables)
    assert tokens.shape == (*SHAPE, 1)
    _, gains = decode(tokens, tables)
    lengths, norms = np.asarray(lengths_of(Z_E))[..., 0], np.linalg.norm(CODEBOOK, axis=-1)
    for code in np.flatnonzero(SOME):
        of_code = np.asarray(CODES) == code
        np.testing.assert_allclose(gains[of_code], lengths[of_code].mean() / norms[code], rtol=1e-5)


def test_a_length_moved_inside_its_bin_changes_no_token():
    tables = Tables(SOME, NONE, bins_of(4, per_code=False))
    tokens = encode(Parts(CODES, lengths_of(Z_E)), tables)
    centroids = np.asarray(tables.centroids)[0]
    boundaries = np.concatenate([[-10], (centroids[1:] + centroids[:-1]) / 2, [10]])
    with_part = np.asarray(SOME[CODES])
    bins = np.asarray(tokens[..., 1])
    inside = RNG.uniform(boundaries[bins] + 1e-4, boundaries[bins + 1] - 1e-4)[..., None].astype(np.float32)
    np.testing.assert_array_equal(encode(Parts(CODES, inside), tables)[with_part], tokens[with_part])


def test_a_residual_comes_back_to_half_a_step():
    tables = Tables(NONE, SOME, step=0.25)
    residuals = Z_E - CODEBOOK[CODES]
    tokens = encode(Parts(CODES, residuals=residuals), tables)
    assert tokens.shape == (*SHAPE, 1 + D)
    latents, gains = decode(tokens, tables)
    with_part = np.asarray(SOME[CODES])
    assert np.abs(latents - Z_E)[with_part].max() <= 0.125 + 1e-6
    np.testing.assert_array_equal(latents[~with_part], CODEBOOK[CODES][~with_part])
    np.testing.assert_array_equal(gains, np.ones(SHAPE))


def test_lengths_and_residuals_go_to_their_own_codes():
    tables = Tables(SOME, ~SOME, bins_of(64), step=0.25)
    residuals = Z_E - CODEBOOK[CODES]
    tokens = encode(Parts(CODES, lengths_of(Z_E), residuals), tables)
    assert tokens.shape == (*SHAPE, 1 + 1 + D)
    np.testing.assert_array_equal(tables.has_continuous, [SOME, ~SOME])
    has_length = np.asarray(SOME[CODES])
    assert not tokens[has_length, 2:].any()
    assert not tokens[~has_length, 1].any()
    parts = to_parts(tokens, tables)
    np.testing.assert_allclose(parts.lengths[has_length], lengths_of(Z_E)[has_length], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(parts.lengths[~has_length], 0)
    np.testing.assert_array_equal(parts.residuals[has_length], 0)
    assert np.abs(parts.residuals - residuals)[~has_length].max() <= 0.125 + 1e-6
    latents, gains = decode(tokens, tables)
    projected = project(Z_E, CODEBOOK[CODES])
    np.testing.assert_allclose(latents[has_length], projected[has_length], rtol=1e-4, atol=1e-5)
    assert np.abs(latents - Z_E)[~has_length].max() <= 0.125 + 1e-6
    np.testing.assert_array_equal(gains[~has_length], 1.0)


def test_residuals_have_one_range_which_is_checked():
    tables = Tables(NONE, ALL, step=0.25)
    residuals = jnp.array([[1e9, -1e9, 12_500.25, jnp.inf]])
    tokens = encode(Parts(jnp.array([3]), residuals=residuals), tables)
    np.testing.assert_array_equal(tokens, [[3, LARGEST_MULTIPLE, -LARGEST_MULTIPLE, 50_001, LARGEST_MULTIPLE]])
    with pytest.raises(ArgumentError, match=r"^prior.residual_step=0.25: residuals reach 16777216 steps"):
        check_residuals(np.asarray(tokens), tables)
    check_residuals(np.asarray(tokens)[..., [0, 3]], tables)
