import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chisquare

from hvq_jax.errors import UserError
from hvq_jax.priors.pixelcnn import PixelCNN, negative_log_likelihood
from hvq_jax.priors.sampling import _gumbel_noise, filter_logits, sample_cached, sample_indices

NUM_CODES = 7
any_logits = hnp.arrays(np.float32, (2, NUM_CODES), elements=st.floats(-8, 8, width=16))
# A few values only, so that most draws have ties.
tied_logits = hnp.arrays(np.float32, (2, NUM_CODES), elements=st.sampled_from([-1.0, -0.0, 0.0, 2.0]))
examples = settings(max_examples=60, deadline=None)


def probabilities(logits):
    exact = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return exact / exact.sum(axis=-1, keepdims=True)


def kept(logits, **options):
    return np.isfinite(filter_logits(jnp.asarray(logits), **options))


@examples
@given(logits=any_logits | tied_logits, top_k=st.integers(1, NUM_CODES + 2))
def test_top_k_keeps_the_k_most_probable_and_of_equals_the_lower_index(logits, top_k):
    first = np.argsort(-logits, axis=-1, kind="stable")[:, :top_k]
    expected = np.zeros(logits.shape, bool)
    np.put_along_axis(expected, first, True, axis=-1)
    np.testing.assert_array_equal(kept(logits, top_k=top_k), expected)


@examples
@given(logits=any_logits | tied_logits, top_p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_reaches_the_mass(logits, top_p):
    for row, keep, p in zip(logits, kept(logits, top_p=top_p), probabilities(logits), strict=True):
        num_kept = keep.sum()
        first = np.argsort(-row, kind="stable")[:num_kept]
        assert num_kept >= 1
        assert keep[first].all()
        # Float32 sums decide what to keep: the exact mass may miss the bound by their rounding.
        assert p[first].sum() >= top_p - 1e-6
        assert p[first[:-1]].sum() <= top_p + 1e-6


def test_top_p_measures_mass_after_top_k():
    logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(kept(logits, top_p=0.5), [False, False, True, True])
    # Of the two left by top-k the first has 0.4 / 0.7.
    np.testing.assert_array_equal(kept(logits, top_k=2, top_p=0.5), [False, False, False, True])


@examples
@given(logits=any_logits, temperature=st.floats(0.1, 10.0))
def test_temperature_divides_the_logits(logits, temperature):
    actual = probabilities(filter_logits(jnp.asarray(logits), temperature=temperature))
    # Quotients up to 160 in float32 carry an error of 1e-5.
    np.testing.assert_allclose(actual, probabilities(logits / np.float64(temperature)), atol=2e-5)


def test_top_p_comes_after_temperature():
    logits = jnp.log(jnp.array([0.6, 0.4]))
    np.testing.assert_array_equal(kept(logits, top_p=0.65), [True, True])
    # At temperature 1/2 the first has 0.36 / 0.52.
    np.testing.assert_array_equal(kept(logits, temperature=0.5, top_p=0.65), [True, False])


@pytest.mark.parametrize("temperature", [0, 1e-40])
def test_temperature_zero_keeps_the_most_probable_code_alone(temperature):
    logits = jnp.array([[0.0, 3.0, 1.0, 3.0], [5.0, 3.0, 1.0, 3.0]])
    expected = [[False, True, False, False], [True, False, False, False]]
    np.testing.assert_array_equal(kept(logits, temperature=temperature), expected)
    np.testing.assert_array_equal(kept(logits, temperature=temperature, top_p=0.5), expected)


def test_a_temperature_that_overflows_the_logits_still_keeps_the_best():
    filtered = filter_logits(jnp.array([40.0, 30.0, -20.0]), temperature=1e-38, top_p=0.9)
    np.testing.assert_array_equal(filtered, [0.0, -np.inf, -np.inf])


def test_without_options_the_distribution_stays_as_it_is():
    logits = jnp.array([[0.5, -1.25, 3.0], [-np.inf, 2.0, 2.0]])
    filtered = filter_logits(logits.astype(jnp.bfloat16))
    assert filtered.dtype == jnp.float32
    np.testing.assert_allclose(probabilities(filtered), probabilities(logits), rtol=1e-6)


def test_filtering_under_jit_is_the_same_on_any_leading_shape():
    options = {"temperature": 0.7, "top_k": 5, "top_p": 0.8}
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 3, 4, NUM_CODES)), jnp.float32)
    jitted = jax.jit(functools.partial(filter_logits, **options))(logits)
    eager = filter_logits(logits.reshape(-1, NUM_CODES), **options).reshape(logits.shape)
    np.testing.assert_array_equal(np.isfinite(jitted), np.isfinite(eager))
    # A compiler may divide by multiplying with the reciprocal.
    np.testing.assert_allclose(jitted, eager, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
    ],
)
def test_an_option_out_of_range_is_one_clear_line(name, value):
    logits, keys = jnp.zeros((1, 2, 2, 3)), jax.random.split(jax.random.key(0), 1)
    for call in (
        lambda: filter_logits(logits, **{name: value}),
        lambda: sample_indices(lambda _: logits, keys, 2, 2, **{name: value}),
        lambda: sample_cached(TINY, {}, None, keys, 2, 2, **{name: value}),
    ):
        with pytest.raises(UserError, match=rf"^{name} is {value}; it must be .*$") as error:
            call()
        assert "\n" not in str(error.value)


def test_positions_are_drawn_in_raster_order():
    def successor_of_the_position_before(indices):
        flat = indices.reshape(indices.shape[0], -1)
        before = jnp.pad(flat[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        return 1e4 * jax.nn.one_hot((before + 1) % NUM_CODES, NUM_CODES).reshape(*indices.shape, NUM_CODES)

    keys = jax.random.split(jax.random.key(0), 2)
    indices = sample_indices(successor_of_the_position_before, keys, 3, 4)
    assert indices.dtype == jnp.int32
    expected = np.arange(12).reshape(3, 4) % NUM_CODES
    np.testing.assert_array_equal(indices, np.stack([expected, expected]))


# A model small enough to enumerate: 3⁴ = 81 latents.
TINY = PixelCNN(3, num_classes=2, width=4, num_layers=2, head_width=8)
ALL_LATENTS = np.array(list(itertools.product(range(3), repeat=4)), np.int32).reshape(81, 2, 2)


@pytest.fixture(scope="module")
def tiny_variables():
    shapes = jax.eval_shape(TINY.init, jax.random.key(0), ALL_LATENTS[:1], jnp.zeros(1, jnp.int32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnames=("height", "width", "temperature", "top_k", "top_p"))
def sample_tiny(variables, keys, labels, height=2, width=2, **options):
    return sample_indices(lambda indices: TINY.apply(variables, indices, labels), keys, height, width, **options)


def exact_probabilities(variables, label, **options):
    logits = TINY.apply(variables, ALL_LATENTS, jnp.full(81, label))
    nats = negative_log_likelihood(filter_logits(logits, **options), ALL_LATENTS)
    return np.exp(-np.asarray(nats, np.float64))


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"top_k": 2}, {"temperature": 2.0, "top_p": 0.7}], ids=str
)
def test_sampled_frequencies_match_the_exact_probabilities(tiny_variables, options):
    exact = exact_probabilities(tiny_variables, 1, **options)
    # Float32 logits: each of four log-probabilities is right to about 1e-7.
    np.testing.assert_allclose(exact.sum(), 1.0, atol=1e-5)

    keys = jax.random.split(jax.random.key(0), 50_000)
    sampled = np.asarray(sample_tiny(tiny_variables, keys, jnp.ones(len(keys), int), **options))
    counts = np.bincount(sampled.reshape(-1, 4) @ [27, 9, 3, 1], minlength=81)
    assert np.all(counts[exact == 0] == 0)

    def p_value(expected):
        # The test is valid where five or more are expected; the rest is pooled.
        common = expected * len(keys) >= 5
        observed = np.append(counts[common], counts[~common].sum())
        expected = np.append(expected[common], expected[~common].sum()) * len(keys)
        possible = expected > 0
        return chisquare(observed[possible], expected[possible] / expected.sum() * len(keys)).pvalue

    assert p_value(exact) > 1e-3
    # The same numbers reject the unfiltered other class: the test can tell distributions apart.
    assert p_value(exact_probabilities(tiny_variables, 0)) < 1e-6


def test_a_sample_depends_on_its_own_key_and_label_only(tiny_variables):
    keys, labels = jax.random.split(jax.random.key(0), 8), jnp.arange(8) % 2
    whole = sample_tiny(tiny_variables, keys, labels, height=3, width=5)
    part = sample_tiny(tiny_variables, keys[2:5], labels[2:5], height=3, width=5)
    reverse = sample_tiny(tiny_variables, keys[::-1], labels[::-1], height=3, width=5)
    np.testing.assert_array_equal(whole[2:5], part)
    np.testing.assert_array_equal(whole[::-1], reverse)
    assert len(np.unique(whole, axis=0)) == len(whole)


def test_another_seed_draws_another_sample(tiny_variables):
    labels = jnp.zeros(8, int)
    draw = functools.partial(sample_tiny, tiny_variables, labels=labels, height=3, width=5)
    first, again, other = (draw(keys=jax.random.split(jax.random.key(seed), 8)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.all(np.any(first != other, axis=(1, 2)))


@pytest.mark.parametrize(
    ("num_classes", "num_layers", "height", "width", "options"),
    [
        (3, 3, 4, 5, {}),
        (0, 2, 1, 6, {"temperature": 0.7, "top_k": 6, "top_p": 0.9}),
        (3, 1, 6, 1, {"temperature": 3.0}),
    ],
    ids=str,
)
def test_the_cached_sampler_draws_the_latents_of_the_naive_one(num_classes, num_layers, height, width, options):
    model = PixelCNN(NUM_CODES, num_classes, width=8, num_layers=num_layers, head_width=16)
    keys = jax.random.split(jax.random.key(0), 32)
    labels = jnp.arange(len(keys)) % num_classes if num_classes else None
    shapes = jax.eval_shape(model.init, keys[0], jnp.zeros((32, height, width), jnp.int32), labels)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)

    @jax.jit
    def naive(keys):
        return sample_indices(lambda indices: model.apply(variables, indices, labels), keys, height, width, **options)

    @jax.jit
    def cached(keys):
        return sample_cached(model, variables, labels, keys, height, width, **options)

    latents = cached(keys)
    assert latents.dtype == jnp.int32
    np.testing.assert_array_equal(latents, naive(keys))


def test_the_cached_sampler_draws_from_the_logits_of_a_bfloat16_model():
    """Every code drawn is the best of one full pass over the latent drawn, or ties with it to that model's rounding."""
    model = PixelCNN(NUM_CODES, 3, width=8, num_layers=3, head_width=16, compute_dtype="bfloat16")
    height, width = 4, 5
    keys, labels = jax.random.split(jax.random.key(0), 64), jnp.arange(64) % 3
    shapes = jax.eval_shape(model.init, keys[0], jnp.zeros((64, height, width), jnp.int32), labels)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    latents = jax.jit(lambda keys: sample_cached(model, variables, labels, keys, height, width))(keys)
    positions = jnp.arange(height * width).reshape(height, width)
    noise = jax.vmap(lambda row: _gumbel_noise(keys, row, NUM_CODES), out_axes=1)(positions).transpose(2, 1, 0, 3)
    scores = np.asarray(jax.jit(model.apply)(variables, latents, labels) + noise)
    chosen = np.take_along_axis(scores, np.asarray(latents)[..., None], axis=-1)[..., 0]
    behind = scores.max(axis=-1) - chosen
    assert behind.max() <= 0.1  # twice the tolerance of a logit, see test_pixelcnn.py
    assert (behind > 0).mean() <= 0.02
    # So draws are those of the naive sampler up to the first such tie.
    naive = jax.jit(lambda keys: sample_indices(lambda x: model.apply(variables, x, labels), keys, height, width))(keys)
    assert (latents == naive).all(axis=(1, 2)).mean() >= 0.75
