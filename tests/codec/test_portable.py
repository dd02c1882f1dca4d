"""Portable streams: float64 whatever the model names, and decoders that differ by up to the tolerance."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.codec.decisions import DecisionReader, DecisionWriter, Grid
from hvq_jax.codec.float64 import in_float64
from hvq_jax.codec.latent_codec import _PORTABLE, _PORTABLE_RESIDUALS
from hvq_jax.codec.range_coder import DamagedStreamError
from hvq_jax.errors import UserError
from tests.codec.conftest import COUNT, Case


def test_of_a_function_in_several_forms_the_one_for_any_platform_is_evaluated():
    third = jnp.float32(1) / 3

    def function(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x - third, default=lambda x: x + third)

    np.testing.assert_allclose(in_float64(function)(np.ones((), np.float32)), 1 + np.float64(third), rtol=1e-15)


def test_a_function_that_names_float32_is_evaluated_in_float64():
    def function(x, n):
        y = jnp.exp(x.astype(jnp.bfloat16)).astype(jnp.float32) + jax.nn.gelu(x) + jax.jit(jnp.tanh)(x) / 3
        return {"y": jnp.where(n > 0, y, 0.0), "n": n + 1}

    x = np.linspace(-2, 2, 9)
    result = in_float64(function)(x.astype(np.float32), np.asarray(2, np.int32))
    x = x.astype(np.float32).astype(np.float64)
    gelu = 0.5 * x * (1 + np.tanh(np.float64(np.float32(np.sqrt(2 / np.pi))) * (x + np.float32(0.044715) * x**3)))
    assert result["y"].dtype == np.float64
    np.testing.assert_allclose(np.asarray(result["y"]), np.exp(x) + gelu + np.tanh(x) / 3, rtol=1e-13)
    assert result["n"].dtype == np.int32
    assert int(result["n"]) == 3


def test_a_function_with_a_loop_is_refused():
    with pytest.raises(UserError, match="while"):
        in_float64(lambda x: jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, x))(np.zeros((), np.float32))


def _decided(grid, noise, seed=0):
    """Return whether decisions come back from a reader whose logs of ratios are off by up to `noise`."""
    rng = np.random.default_rng(seed)
    log_ratio = rng.normal(0, 4, 20_000)
    bits = rng.uniform(size=len(log_ratio)) < 1 / (1 + np.exp(-log_ratio))
    writer = DecisionWriter(grid)
    writer.decide(np.exp(log_ratio), np.ones(len(log_ratio)), bits)
    seen = log_ratio + noise * rng.uniform(-1, 1, len(log_ratio))
    reader = DecisionReader(writer.finish(), grid)
    with contextlib.suppress(DamagedStreamError):
        return np.array_equal(reader.decide(np.exp(seen), np.ones(len(seen)), None), bits)
    return False


@pytest.mark.parametrize("grid", [_PORTABLE, _PORTABLE_RESIDUALS, Grid(4, 2e-5), Grid(8, 1e-3)])
def test_a_reader_within_the_tolerance_decides_the_same(grid):
    assert all(_decided(grid, 0.99 * grid.tolerance, seed) for seed in range(5))


def test_without_the_marks_it_would_not():
    assert not _decided(Grid(), 1e-3)
    assert not _decided(Grid(8, 1e-5), 1e-3)


@functools.cache
def _stream(kind):
    case = Case(kind)
    return case, case.codec(portable=True).encode(case.tokens, case.labels, COUNT)


@pytest.mark.parametrize("kind", ["transformer", "bins", "residuals"])
def test_another_batch_size_decodes_a_portable_stream(kind):
    case, block = _stream(kind)
    tokens, _ = case.codec(portable=True).decode(block, COUNT, COUNT + 3)
    np.testing.assert_array_equal(tokens, case.tokens)


@pytest.mark.parametrize("kind", ["transformer", "bins", "residuals"])
def test_parameters_a_rounding_error_away_decode_a_portable_stream(kind):
    """Far more than what another machine's float64 does to results: parameters off by 1e-13 of themselves."""
    case, block = _stream(kind)
    rng = np.random.default_rng(1)
    codec = case.codec(portable=True)
    codec._steps._variables = jax.tree.map(
        lambda leaf: np.asarray(leaf) * (1 + 1e-13 * rng.uniform(-1, 1, leaf.shape)), codec._steps._variables
    )
    np.testing.assert_array_equal(codec.decode(block, COUNT, COUNT)[0], case.tokens)
