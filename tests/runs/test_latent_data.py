"""The training data of a prior: latents as they are stored, and their tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.data.pipeline import Batch
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import LATENTS
from hvq_jax.priors import make_prior
from hvq_jax.priors.options import PriorOptions, TokenOptions
from hvq_jax.priors.tokens import LARGEST_MULTIPLE, Parts, to_parts, to_tokens
from hvq_jax.quantizers import LatentOptions
from hvq_jax.runs.latent_data import SPLITS, tokenize
from hvq_jax.training.prior_stage import PriorStage

K, D, GRID = 4, 3, (2, 2)
FREQUENT = np.arange(K) < 1


def stored(scale=1.0, count=5):
    """Return the arrays of a `latents.npz` of the latent `frequency`, with residuals at the positions of rare codes."""
    rng = np.random.default_rng(0)
    arrays = {"frequent": FREQUENT}
    for split in SPLITS:
        indices = rng.integers(0, K, (count, *GRID), dtype=np.int32)
        residuals = rng.normal(0, scale, (np.count_nonzero(~FREQUENT[indices]), D)).astype(np.float32)
        arrays |= {f"{split}_indices": indices, f"{split}_labels": np.zeros(count, np.int32)}
        arrays[f"{split}_residuals"] = residuals
    return arrays


def tokens_of(arrays, step):
    return tokenize(LATENTS["frequency"], arrays, TokenOptions(residual_step=step))


@pytest.mark.parametrize(("largest", "dtype"), [(32_767, np.int16), (50_000, np.int32), (10_000_000, np.int32)])
def test_every_multiple_of_the_step_is_kept_in_training_as_in_use(largest, dtype):
    arrays, step = stored(), 0.5
    arrays["train_residuals"][:2] = np.array([[-largest], [largest]]) * step
    data = tokens_of(arrays, step)
    assert data.train.items.dtype == dtype
    rare = ~FREQUENT[arrays["train_indices"]]
    np.testing.assert_array_equal(data.train.items[rare][:2, 1:], np.array([[-largest] * D, [largest] * D]))
    in_use = to_tokens(Parts(jnp.array([3, 3]), residuals=jnp.asarray(arrays["train_residuals"][:2])), data.tables)
    np.testing.assert_array_equal(in_use[:, 1:], data.train.items[rare][:2, 1:])
    np.testing.assert_array_equal(to_parts(in_use, data.tables).residuals, arrays["train_residuals"][:2])


@pytest.mark.parametrize("beyond", [float(LARGEST_MULTIPLE), 1e30, np.inf])
def test_residuals_beyond_what_is_exact_are_refused_in_one_line(beyond):
    arrays = stored()
    arrays["test_residuals"][-1, -1] = beyond
    with pytest.raises(ArgumentError, match=r"^prior.residual_step=1: residuals reach 16777216 steps.* larger step$"):
        tokens_of(arrays, 1.0)


def test_held_out_latents_come_with_their_residuals_before_rounding():
    arrays = stored()
    data = tokens_of(arrays, 0.5)
    rows = np.array([3, 0, 4, 4])
    (tokens, residuals), labels = data.validation.read(rows)
    np.testing.assert_array_equal(tokens, data.validation.items[rows])
    assert labels.shape == (4,)
    dense = np.zeros((5, *GRID, D), np.float32)
    dense[~FREQUENT[arrays["validation_indices"]]] = arrays["validation_residuals"]
    np.testing.assert_array_equal(residuals, dense[rows])
    assert data.train.read(rows)[0].shape == (4, *GRID, 1 + D)


def test_the_density_is_that_of_the_residuals_before_rounding_and_the_mass_that_of_their_cells():
    options = PriorOptions(residual_step=2.0, width=4, num_layers=2, head_width=8)
    latent = LatentOptions(mode="frequency", num_codes=K, dim=D)
    prior = make_prior(options, latent, num_codes=K, num_classes=0, grid=GRID)
    data = tokens_of(stored(), options.residual_step)
    stage = PriorStage(prior, GRID, has_continuous=np.asarray(data.tables.has_continuous))
    params, _ = jax.jit(stage.init)(jax.random.key(0))
    (tokens, residuals), labels = data.test.read(np.arange(5))
    rounded = np.where(residuals == 0, 0, to_parts(jnp.asarray(tokens, jnp.int32), data.tables).residuals)
    assert np.abs(rounded - residuals).max() > 0.5
    evaluate = jax.jit(stage.evaluate)
    exact, moved, without = (
        evaluate(params, None, Batch(items, labels, np.ones(5, bool)))
        for items in ((tokens, residuals), (tokens, rounded), tokens)
    )
    assert exact.continuous.value == moved.continuous.value == without.continuous.value
    assert without.density is None

    @jax.jit
    def of_head(given):
        features = prior.apply(params, tokens, None, data.tables.has_continuous, method="features")
        log_density = prior.bind(params).heads[0].log_density(features, tokens[..., 0], given)
        return -jnp.where(~FREQUENT[tokens[..., 0]], log_density, 0).sum(axis=(1, 2)).mean()

    for found, given in ((exact, residuals), (moved, rounded)):
        assert float(found.density.value) == pytest.approx(float(of_head(given)), rel=1e-5)
    assert float(exact.density.value) != pytest.approx(float(moved.density.value), rel=1e-3)
