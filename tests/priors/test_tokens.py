"""The tokens of a latent, and the latent reconstructed from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.latents import in_groups, project, signed_length
from hvq_jax.priors.bins import fit_bins
from hvq_jax.priors.tokens import Tables, from_tokens, to_tokens

K, D, SHAPE = 6, 4, (5, 3, 2)
RNG = np.random.default_rng(0)
CODEBOOK = jnp.asarray(RNG.normal(size=(K, D)), jnp.float32)
CODES = jnp.asarray(RNG.integers(K, size=SHAPE), jnp.int32)
Z_E = jnp.asarray(RNG.normal(size=(*SHAPE, D)), jnp.float32)
SOME = jnp.array([True, False, True, True, False, True])


def lengths_of(z_e, groups=1):
    lengths = signed_length(in_groups(z_e, groups), in_groups(CODEBOOK[CODES], groups))
    return lengths if groups > 1 else lengths[..., None]


def bins_of(num_bins, per_code=True, groups=1, where=None):
    chosen = np.asarray(SOME[CODES]) if where is None else where
    options = {"num_codes": K, "num_bins": num_bins, "per_code": per_code}
    return jnp.asarray(fit_bins(np.asarray(lengths_of(Z_E, groups))[chosen], np.asarray(CODES)[chosen], **options))


def test_plain_codes_are_themselves():
    tables = Tables(jnp.zeros(K, bool), None)
    tokens = to_tokens(CODES, lengths_of(Z_E), tables)
    assert tokens.shape == (*SHAPE, 1)
    latents, gains = from_tokens(tokens, tables, CODEBOOK)
    np.testing.assert_array_equal(latents, CODEBOOK[CODES])
    np.testing.assert_array_equal(gains, np.ones(SHAPE))


@pytest.mark.parametrize("groups", [1, 2])
def test_with_enough_bins_the_projection_is_transmitted(groups):
    tables = Tables(SOME, bins_of(64, groups=groups))
    tokens = jax.jit(to_tokens)(CODES, lengths_of(Z_E, groups), tables)
    assert tokens.shape == (*SHAPE, 1 + groups)
    latents, _ = from_tokens(tokens, tables, CODEBOOK, groups)
    projected = project(in_groups(Z_E, groups), in_groups(CODEBOOK[CODES], groups)).reshape(Z_E.shape)
    present = np.asarray(SOME[CODES])
    # Of 30 values each has a bin.
    np.testing.assert_allclose(latents[present], projected[present], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(latents[~present], CODEBOOK[CODES][~present])
    assert not tokens[~present, 1:].any()


@pytest.mark.parametrize("groups", [1, 2])
def test_with_one_bin_the_mean_gain_of_code_and_group_is_shown(groups):
    tables = Tables(jnp.ones(K, bool), bins_of(1, groups=groups, where=np.ones(SHAPE, bool)))
    _, gains = from_tokens(CODES[..., None], tables, CODEBOOK, groups)
    exact = lengths_of(Z_E, groups) / np.linalg.norm(in_groups(CODEBOOK[CODES], groups), axis=-1).reshape(
        *SHAPE, groups
    )
    for code in range(K):
        there = np.asarray(CODES) == code
        mean = np.asarray(exact)[there].mean(axis=0)
        np.testing.assert_allclose(gains.reshape(*SHAPE, groups)[there], [mean] * there.sum(), rtol=1e-4, atol=1e-5)


def test_the_error_falls_with_the_number_of_bins():
    projected, present = project(Z_E, CODEBOOK[CODES]), SOME[CODES]
    errors = []
    for num_bins in (1, 2, 4, 8):
        tables = Tables(SOME, bins_of(num_bins))
        latents, _ = from_tokens(to_tokens(CODES, lengths_of(Z_E), tables), tables, CODEBOOK)
        errors.append(float(jnp.square(latents - projected)[present].mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_one_bin_is_each_codes_mean_and_not_transmitted():
    tables = Tables(SOME, bins_of(1))
    tokens = to_tokens(CODES, lengths_of(Z_E), tables)
    assert tokens.shape == (*SHAPE, 1)
    _, gains = from_tokens(tokens, tables, CODEBOOK)
    lengths, norms = np.asarray(lengths_of(Z_E))[..., 0], np.linalg.norm(CODEBOOK, axis=-1)
    for code in np.flatnonzero(SOME):
        of_code = np.asarray(CODES) == code
        np.testing.assert_allclose(gains[of_code], lengths[of_code].mean() / norms[code], rtol=1e-5)


def test_a_length_moved_inside_its_bin_changes_no_token():
    tables = Tables(SOME, bins_of(4, per_code=False))
    tokens = to_tokens(CODES, lengths_of(Z_E), tables)
    centroids = np.asarray(tables.centroids)[0]
    boundaries = np.concatenate([[-10], (centroids[1:] + centroids[:-1]) / 2, [10]])
    present = np.asarray(SOME[CODES])
    bins = np.asarray(tokens[..., 1])
    inside = RNG.uniform(boundaries[bins] + 1e-4, boundaries[bins + 1] - 1e-4)[..., None].astype(np.float32)
    np.testing.assert_array_equal(to_tokens(CODES, inside, tables)[present], tokens[present])


def test_a_residual_comes_back_to_half_a_step():
    tables = Tables(SOME, None, step=0.25)
    residuals = Z_E - CODEBOOK[CODES]
    tokens = to_tokens(CODES, residuals, tables)
    assert tokens.shape == (*SHAPE, 1 + D)
    latents, gains = from_tokens(tokens, tables, CODEBOOK)
    present = np.asarray(SOME[CODES])
    assert np.abs(latents - Z_E)[present].max() <= 0.125 + 1e-6
    np.testing.assert_array_equal(latents[~present], CODEBOOK[CODES][~present])
    np.testing.assert_array_equal(gains, np.ones(SHAPE))
