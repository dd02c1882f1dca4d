import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import chisquare, norm

from hvq_jax.errors import ArgumentError
from hvq_jax.priors.filtering import filter_logits
from hvq_jax.priors.heads import CodeHead, GainHead, ResidualHead

K, WIDTH = 3, 4
CODES = CodeHead(K, head_width=8)
GAIN = GainHead(K, num_bins=4, groups=1, width=WIDTH, head_width=8)
GAINS = GainHead(K, num_bins=3, groups=3, width=WIDTH, head_width=8)
RESIDUAL = ResidualHead(K, dim=1, step=0.5, num_components=2, width=WIDTH, head_width=8)
RESIDUALS = ResidualHead(K, dim=2, step=0.75, num_components=3, width=WIDTH, head_width=8)
ALL = pytest.mark.parametrize("head", [GAIN, GAINS, RESIDUAL, RESIDUALS], ids=["g=1", "g=3", "D=1", "D=2"])
TWO = pytest.mark.parametrize("head", [GAINS, RESIDUALS], ids=["g=3", "D=2"])
RESIDUAL_HEADS = pytest.mark.parametrize("head", [RESIDUAL, RESIDUALS], ids=["D=1", "D=2"])
CONTEXTS = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)


def outcomes(head):
    """Return every continuous part [n, c] with a probability worth counting."""
    values = range(head.num_bins) if isinstance(head, GainHead) else range(-40, 41)
    return np.array(list(itertools.product(values, repeat=head.channels)), np.int32)


def everything(head, features, codes, continuous):
    return head.log_probability(features, codes, continuous), head.embed(continuous)


@functools.partial(jax.jit, static_argnums=0)
def initial_variables(head):
    """Return the variables of `init`, for all methods."""
    continuous = jnp.zeros((1, head.channels), jnp.int32)
    return head.init(jax.random.key(0), CONTEXTS[:1], jnp.zeros(1, jnp.int32), continuous, method=everything)


@functools.cache
def variables_of(head):
    """Return random variables, none of them zero."""
    shapes = jax.eval_shape(functools.partial(initial_variables, head))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)


# Compiled once for each head and shape.
@functools.partial(jax.jit, static_argnums=(0, 1))
def call(head, method, *arguments):
    return head.apply(variables_of(head), *arguments, method=method)


@functools.partial(jax.jit, static_argnums=(0, 4))
def draw(head, features, codes, keys, temperature=1.0):
    return head.apply(variables_of(head), features, codes, keys, temperature=temperature, method="draw")


def log_probabilities(head, context, code):
    """Return those of all outcomes, [n] float64, in one context [width]."""
    values = outcomes(head)
    features = np.broadcast_to(context, (len(values), WIDTH))
    result = call(head, "log_probability", features, np.full(len(values), code, np.int32), values)
    assert result.dtype == np.float32
    return np.asarray(result, np.float64)


def float64_mixture(head, context, code, *, variance=1.0):
    """Return the probabilities of all outcomes, computed with scipy from the head's mixture."""
    logits, means, scales = (
        np.asarray(x[0], np.float64) for x in call(head, "components", context[None], np.array([code], np.int32))
    )
    centres = head.step * outcomes(head)[:, None, :].astype(np.float64)
    cells = norm(means, np.sqrt(variance) * scales)
    masses = (cells.cdf(centres + head.step / 2) - cells.cdf(centres - head.step / 2)).prod(axis=-1)
    return masses @ np.exp(logits - logsumexp(logits))


@ALL
def test_probabilities_of_all_codes_and_continuous_parts_sum_to_1(head):
    shapes = jax.eval_shape(CODES.init, jax.random.key(0), CONTEXTS)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)
    code_probabilities = np.asarray(jax.nn.softmax(CODES.apply(variables, CONTEXTS)), np.float64)
    for context, p in zip(CONTEXTS, code_probabilities, strict=True):
        total = sum(p[code] * np.exp(log_probabilities(head, context, code)).sum() for code in range(K))
        np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_the_code_head_is_a_hidden_layer_with_relu():
    variables = CODES.init(jax.random.key(0), CONTEXTS)
    params = variables["params"]
    assert set(params) == {"hidden", "logits"}
    hidden = np.maximum(CONTEXTS @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    expected = hidden @ params["logits"]["kernel"] + params["logits"]["bias"]
    np.testing.assert_allclose(CODES.apply(variables, CONTEXTS), expected, rtol=1e-5, atol=1e-6)


@TWO
def test_any_leading_shape_is_predicted_as_its_positions_one_by_one(head):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(2, 3, 4, WIDTH)).astype(np.float32)
    codes = rng.integers(0, K, (2, 3, 4), dtype=np.int32)
    continuous = rng.integers(0, 3, (2, 3, 4, head.channels), dtype=np.int32)
    whole = call(head, "log_probability", features, codes, continuous)
    assert whole.shape == (2, 3, 4)
    flat = (features.reshape(24, WIDTH), codes.reshape(24), continuous.reshape(24, -1))
    np.testing.assert_allclose(whole.reshape(24), call(head, "log_probability", *flat), rtol=1e-5)
    embedded = call(head, "embed", continuous)
    assert embedded.shape == (2, 3, 4, WIDTH)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded.reshape(24, WIDTH), call(head, "embed", flat[-1]), rtol=1e-5, atol=1e-6)


@ALL
def test_what_is_predicted_depends_on_the_code_and_the_features(head):
    base = log_probabilities(head, CONTEXTS[0], 0)
    assert np.abs(base - log_probabilities(head, CONTEXTS[0], 1)).max() > 1e-2
    assert np.abs(base - log_probabilities(head, CONTEXTS[1], 0)).max() > 1e-2


# Draws.

NUM_DRAWS = 20_000
KEYS = jax.random.split(jax.random.key(0), NUM_DRAWS)


def drawn_counts(head, context, code, temperature=1.0):
    features = np.broadcast_to(context, (NUM_DRAWS, WIDTH))
    sample = np.asarray(draw(head, features, np.full(NUM_DRAWS, code, np.int32), KEYS, temperature))
    assert sample.dtype == np.int32
    values = outcomes(head)
    base = values.max() - values.min() + 1
    place = base ** np.arange(head.channels)[::-1]
    return np.bincount((sample - values.min()) @ place, minlength=len(values))


def p_value(counts, probabilities):
    # The test is valid where five or more are expected; the rest is pooled.
    expected = probabilities / probabilities.sum() * counts.sum()
    common = expected >= 5
    counts, expected = (np.append(x[common], x[~common].sum()) for x in (counts, expected))
    possible = expected > 0
    assert not counts[~possible].any()
    return chisquare(counts[possible], expected[possible]).pvalue


@ALL
def test_draws_have_the_probabilities_that_are_predicted(head):
    counts = drawn_counts(head, CONTEXTS[0], 1)
    assert p_value(counts, np.exp(log_probabilities(head, CONTEXTS[0], 1))) > 1e-3
    # The same numbers reject another code and another context.
    assert p_value(counts, np.exp(log_probabilities(head, CONTEXTS[0], 0))) < 1e-6
    assert p_value(counts, np.exp(log_probabilities(head, CONTEXTS[1], 1))) < 1e-6


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_scales_the_logits_of_every_group(temperature):
    head = GAINS
    values = outcomes(head)
    features = np.broadcast_to(CONTEXTS[0], (len(values), WIDTH))
    logits = call(head, "bin_logits", features, np.ones(len(values), np.int32), values)
    filtered = np.exp(np.asarray(jax.nn.log_softmax(filter_logits(logits, temperature=temperature)), np.float64))
    exact = np.take_along_axis(filtered, values[..., None], axis=-1).prod(axis=(-2, -1))
    counts = drawn_counts(head, CONTEXTS[0], 1, temperature)
    assert p_value(counts, exact) > 1e-3
    assert p_value(drawn_counts(head, CONTEXTS[0], 1), np.maximum(exact, 1e-12)) < 1e-6


@RESIDUAL_HEADS
def test_temperature_scales_the_variance_of_residuals(head):
    counts = drawn_counts(head, CONTEXTS[0], 1, temperature=0.25)
    assert p_value(counts, float64_mixture(head, CONTEXTS[0], 1, variance=0.25)) > 1e-3
    assert p_value(counts, float64_mixture(head, CONTEXTS[0], 1)) < 1e-6


def test_temperature_zero_draws_the_most_probable_bin_of_each_group():
    head = GAINS
    codes = np.arange(5, dtype=np.int32) % K
    greedy = draw(head, CONTEXTS, codes, KEYS[:5], 0)
    np.testing.assert_array_equal(greedy, draw(head, CONTEXTS, codes, KEYS[5:10], 0))
    np.testing.assert_array_equal(call(head, "bin_logits", CONTEXTS, codes, greedy).argmax(axis=-1), greedy)


def test_temperature_zero_draws_the_mean_of_the_most_probable_component():
    head = RESIDUALS
    codes = np.arange(5, dtype=np.int32) % K
    logits, means, _ = call(head, "components", CONTEXTS, codes)
    mean = np.take_along_axis(means, np.argmax(logits, axis=-1)[:, None, None], axis=1)[:, 0]
    np.testing.assert_array_equal(draw(head, CONTEXTS, codes, KEYS[:5], 0), np.round(mean / np.float32(head.step)))


@TWO
def test_a_draw_depends_on_its_own_key_only(head):
    features, codes = np.broadcast_to(CONTEXTS[0], (40, WIDTH)), np.ones(40, np.int32)
    whole = draw(head, features, codes, KEYS[:40])
    np.testing.assert_array_equal(whole[::-1], draw(head, features, codes, KEYS[:40][::-1]))
    others = jnp.concatenate([KEYS[:20], KEYS[100:120]])
    mixed = draw(head, features, np.repeat([1, 0], 20).astype(np.int32), others)
    np.testing.assert_array_equal(whole[:20], mixed[:20])
    assert (whole[20:] != mixed[20:]).any()


@TWO
def test_a_temperature_out_of_range_is_one_clear_line(head):
    for temperature in (-1.0, float("inf")):
        with pytest.raises(ArgumentError, match=rf"^temperature={temperature}: must be [^\n]*"):
            draw(head, CONTEXTS, np.zeros(5, np.int32), KEYS[:5], temperature)


# Gains.


def test_one_bin_costs_nothing_and_adds_nothing():
    head = GainHead(K, num_bins=1, groups=2, width=WIDTH, head_width=8)
    assert not initial_variables(head)
    codes, bins = np.arange(5, dtype=np.int32) % K, np.zeros((5, 2), np.int32)
    np.testing.assert_array_equal(head.apply({}, CONTEXTS, codes, bins, method="log_probability"), np.zeros(5))
    np.testing.assert_array_equal(head.apply({}, bins, method="embed"), np.zeros((5, WIDTH)))
    np.testing.assert_array_equal(head.apply({}, CONTEXTS, codes, KEYS[:5], method="draw"), bins)


def test_a_group_sees_the_groups_before_it_only():
    head = GainHead(K, num_bins=3, groups=4, width=WIDTH, head_width=8)
    rng = np.random.default_rng(0)
    bins, codes = rng.integers(0, 3, (5, 4), dtype=np.int32), np.zeros(5, np.int32)
    logits = call(head, "bin_logits", CONTEXTS, codes, bins)
    assert logits.shape == (5, 4, 3)
    for group in range(4):
        changed = bins.copy()
        changed[:, group] = (changed[:, group] + 1) % 3
        difference = np.abs(logits - call(head, "bin_logits", CONTEXTS, codes, changed)).max(axis=(0, 2))
        assert (difference[: group + 1] == 0).all()
        assert (difference[group + 1 :] > 1e-3).all()


def test_bins_are_equally_probable_at_first():
    variables = initial_variables(GAINS)
    score = jax.jit(functools.partial(GAINS.apply, method="log_probability"))
    log_p = score(variables, CONTEXTS, np.zeros(5, int), np.ones((5, 3), int))
    np.testing.assert_allclose(log_p, -3 * np.log(3), rtol=1e-6)


def test_the_embedding_of_bins_is_a_sum_over_the_groups():
    table = variables_of(GAINS)["params"]["bin_embedding"]["embedding"].reshape(3, 3, WIDTH)
    expected = [table[np.arange(3), bins].sum(axis=0) for bins in outcomes(GAINS)]
    np.testing.assert_allclose(call(GAINS, "embed", outcomes(GAINS)), expected, rtol=1e-6)


# Residuals.


@RESIDUAL_HEADS
def test_residuals_have_the_masses_of_scipy(head):
    for code in range(K):
        exact = float64_mixture(head, CONTEXTS[0], code)
        actual = log_probabilities(head, CONTEXTS[0], code)
        likely = exact > 1e-12  # less than that cancels in scipy's difference
        np.testing.assert_allclose(actual[likely], np.log(exact[likely]), rtol=1e-5, atol=1e-5)


def test_an_outlier_has_a_finite_probability_and_finite_gradients():
    codes, residuals = np.arange(5, dtype=np.int32) % K, np.full((5, 2), 10_000, np.int32)

    @jax.jit
    @jax.value_and_grad
    def loss(variables):
        return -RESIDUALS.apply(variables, CONTEXTS, codes, residuals, method="log_probability").mean()

    value, gradients = loss(variables_of(RESIDUALS))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@RESIDUAL_HEADS
def test_masses_of_small_steps_tend_to_the_density(head):
    fine = head.clone(step=2.0**-12, min_scale=0.1 * head.step * 2**12)  # the same standard deviations
    residuals = np.random.default_rng(0).integers(-3 * 2**12, 3 * 2**12, (5, head.dim), dtype=np.int32)
    codes = np.arange(5, dtype=np.int32) % K
    mass = call(fine, "log_probability", CONTEXTS, codes, residuals)
    density = call(head, "log_density", CONTEXTS, codes, (residuals * fine.step).astype(np.float32))
    np.testing.assert_allclose(mass - head.dim * np.log(fine.step), density, rtol=1e-5, atol=1e-4)


def test_residuals_start_near_the_scale_that_is_given():
    head = ResidualHead(
        K, dim=16, step=0.01, num_components=8, width=WIDTH, head_width=64, initial_scale=0.05, min_scale=0.1
    )
    components = jax.jit(functools.partial(head.apply, method="components"))
    logits, means, scales = components(initial_variables(head), CONTEXTS, np.zeros(5, int))
    assert logits.shape == (5, 8)
    assert means.shape == scales.shape == (5, 8, 16)
    assert 0.03 < np.median(scales) < 0.08
    assert scales.min() > 0.1 * 0.01
    assert np.std(means) < 0.1
    # Components that began alike would stay so.
    assert np.std(means, axis=1).min() > 1e-3


@TWO
def test_hidden_layers_in_bfloat16_give_float32_probabilities(head):
    rounded = head.clone(compute_dtype="bfloat16")
    exact, actual = (log_probabilities(x, CONTEXTS[0], 1) for x in (head, rounded))  # float32, or it fails
    np.testing.assert_allclose(np.exp(actual).sum(), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.exp(actual), np.exp(exact), atol=0.02)
    assert (actual != exact).any()
    assert call(rounded, "embed", outcomes(head)).dtype == np.float32
    assert draw(rounded, CONTEXTS, np.zeros(5, np.int32), KEYS[:5]).dtype == np.int32
