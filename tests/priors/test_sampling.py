"""Draws from a prior: exact frequencies, agreement of all implementations, and positions that are kept."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from hvq_jax.errors import ArgumentError
from hvq_jax.priors.filtering import filter_logits
from hvq_jax.priors.heads import GainHead, ResidualHead
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.sampling import (
    DEFAULT_OPTIONS,
    CodeSamplingOptions,
    Kept,
    SamplingOptions,
    all_codes,
    sample,
    sample_naive,
    top_rows,
)
from hvq_jax.priors.transformer import Transformer
from tests.priors.models import pixelcnn_prior, random_variables

K, G = 3, 2
HEAD = {"width": 8, "head_width": 16}
GAINS = GainHead(K, G, 1, **HEAD)
PAIRS = GainHead(K, G, 2, **HEAD)
RESIDUAL = ResidualHead(K, 2, 0.5, 3, **HEAD)
EVERYWHERE, SOMEWHERE = np.array([True, True, True]), np.array([True, False, True])
HEADS = {  # and which codes have the part of each, [P, K]
    "vq": ((), np.zeros((0, K), bool)),
    "projected": ((GAINS,), EVERYWHERE[None]),
    "combined": ((GAINS,), SOMEWHERE[None]),
    "projected in groups": ((PAIRS,), EVERYWHERE[None]),
    "frequency": ((RESIDUAL,), SOMEWHERE[None]),
    "projected, else z_e": ((GAINS, RESIDUAL), np.stack([SOMEWHERE, ~SOMEWHERE])),
    "vq, two codes": ((), np.zeros((0, K), bool)),
}
CODES = {latent: 2 if "two codes" in latent else 1 for latent in HEADS}  # per position


def prior_of(network, latent, grid, num_classes=2):
    heads, _ = HEADS[latent]
    if network == "pixelcnn":
        return pixelcnn_prior(K, num_classes, heads=heads, codes=CODES[latent])
    transformer = Transformer(grid, num_classes, width=8, num_layers=2, num_heads=2)
    return Prior(K, transformer, heads, 16, CODES[latent])


def tokens_of(latent, *shape, seed=0):
    """Return random tokens, zero where a code has no continuous part."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(K, size=(*shape, CODES[latent]), dtype=np.int32)
    tokens = [codes]
    for head, has_part in zip(*HEADS[latent], strict=True):
        low, high = (-3, 4) if head is RESIDUAL else (0, G)
        parts = rng.integers(low, high, size=(*shape, head.channels), dtype=np.int32)
        tokens.append(np.where(has_part[codes], parts, 0))
    return np.concatenate(tokens, axis=-1)


# What a network sees of codes and continuous parts is one embedding, whatever there is of them: a network that is
# tested with all kinds of parts needs no test with each. Positions with several codes have no continuous part.
ALL_PARTS = [("pixelcnn", "projected, else z_e"), ("pixelcnn", "vq, two codes"), ("transformer", "projected, else z_e")]
KINDS_OF_LATENTS = [*ALL_PARTS, ("pixelcnn", "projected in groups")]


def all_latents(latent):
    """Return every latent of 2x2 positions: `[N, 2, 2, L + c]`."""
    heads, has_continuous = HEADS[latent]
    if CODES[latent] > 1:
        return np.array(list(itertools.product(range(K), repeat=4 * CODES[latent])), np.int32).reshape(
            -1, 2, 2, CODES[latent]
        )
    bins = [G if has_continuous[:, code].any() else 1 for code in range(K)]
    outcomes = [(code, b)[: 1 + len(heads)] for code in range(K) for b in range(bins[code])]
    return np.array(list(itertools.product(outcomes, repeat=4)), np.int32).reshape(-1, 2, 2, len(outcomes[0]))


@pytest.mark.parametrize(
    ("network", "latent"),
    [
        ("pixelcnn", "combined"),
        ("pixelcnn", "vq, two codes"),
        ("transformer", "vq"),
        ("transformer", "combined"),
    ],
)
def test_probabilities_sum_to_one_and_draws_follow_them(network, latent):
    model, has_continuous, latents = prior_of(network, latent, (2, 2)), HEADS[latent][1], all_latents(latent)
    variables = random_variables(model, latents[:1], jnp.zeros(1, int), has_continuous)
    labels, apply = jnp.ones(len(latents), int), jax.jit(model.apply)
    nats = apply(variables, latents, labels, has_continuous).of_latents()
    exact = np.exp(-np.asarray(nats.total, np.float64))
    np.testing.assert_allclose(exact.sum(), 1.0, atol=1e-5)

    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.jit(
        lambda keys: sample(model, variables, jnp.ones(len(keys), int), keys, 2, 2, has_continuous=has_continuous)
    )
    drawn = draw(keys)
    numbers = {tuple(row): number for number, row in enumerate(latents.reshape(len(latents), -1).tolist())}
    sampled = [numbers[tuple(row)] for row in np.asarray(drawn.tokens).reshape(len(keys), -1).tolist()]
    counts = np.bincount(sampled, minlength=len(latents))

    def p_value(expected):
        # The test is valid where five or more are expected; the rest is pooled.
        common = expected * len(keys) >= 5
        observed = np.append(counts[common], counts[~common].sum())
        expected = np.append(expected[common], expected[~common].sum())
        possible = expected > 0
        return chisquare(observed[possible], expected[possible] / expected[possible].sum() * len(keys)).pvalue

    assert p_value(exact) > 1e-3
    # The same numbers reject other parameters: the test can tell distributions apart.
    others = random_variables(model, latents[:1], jnp.zeros(1, int), has_continuous, seed=1)
    other_nats = apply(others, latents, labels, has_continuous).of_latents()
    other = np.exp(-np.asarray(other_nats.total, np.float64))
    assert p_value(other / other.sum()) < 1e-6
    # The likelihood computed on the way is that of one pass.
    np.testing.assert_allclose(drawn.nats.of_latents().total, nats.total[np.array(sampled)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "latent"),
    [*KINDS_OF_LATENTS, ("pixelcnn", "vq"), ("pixelcnn", "combined"), ("pixelcnn", "frequency")],
)
def test_causality(network, latent):
    """A code affects later predictions and its own continuous part; that part affects later predictions only."""
    height, width = 3, 4
    model, (heads, has_continuous) = prior_of(network, latent, (height, width)), HEADS[latent]
    tokens = tokens_of(latent, 1, height, width)
    label = jnp.zeros(1, int)
    variables = random_variables(model, tokens, label, has_continuous)

    def predicted(model, tokens, scored):
        features = model.features(tokens, label, has_continuous)
        nats = model.nats(features, scored, has_continuous)
        return model.code_logits(features), nats.continuous  # by a fixed continuous part

    call = jax.jit(functools.partial(model.apply, variables, method=predicted))

    def moved(changed, scored, scored_changed):
        """Return positions whose code logits, and whose continuous part's likelihood, differ."""
        (logits, nats), (others, other_nats) = call(tokens, scored), call(changed, scored_changed)
        return np.any(logits != others, axis=-1).ravel(), np.asarray(nats != other_nats).ravel()

    place = 5
    row, column = divmod(place, width)
    behind = np.arange(height * width) > place
    changed = tokens.copy()
    changed[0, row, column, 0] = 0 if tokens[0, row, column, 0] else 2  # both have a continuous part where any has
    codes, parts = moved(changed, tokens, changed)
    assert not codes[~behind].any()
    assert codes[behind].any()
    assert not parts[:place].any()
    channels = np.repeat(has_continuous, [head.channels for head in heads], axis=0)[:, tokens[0, row, column, 0]]
    if channels.any():
        assert parts[place]
        changed = tokens.copy()
        part = 1 + np.argmax(channels)
        changed[0, row, column, part] += 1 if tokens[0, row, column, part] == 0 else -1
        codes, parts = moved(changed, tokens, tokens)
        assert not codes[~behind].any()
        assert not parts[~behind].any()
        assert codes[behind].any()
        assert parts[behind].any()


@pytest.mark.parametrize(("network", "latent"), KINDS_OF_LATENTS)
def test_each_feature_once_draws_what_full_passes_draw(network, latent):
    height, width = 2, 3
    model, has_continuous = prior_of(network, latent, (height, width)), HEADS[latent][1]
    tokens = tokens_of(latent, 8, height, width)
    labels, keys = jnp.arange(8) % 2, jax.random.split(jax.random.key(0), 8)
    variables = random_variables(model, tokens, labels, has_continuous)
    options = SamplingOptions(0.7, 2, 0.9, continuous_temperature=0.5, guidance=1.5)
    kept = top_rows(jnp.asarray(tokens), 1)
    both = [
        jax.jit(
            functools.partial(f, model, height=height, width=width, has_continuous=has_continuous, options=options)
        )(variables, labels, keys, kept=kept)
        for f in (sample, sample_naive)
    ]
    np.testing.assert_array_equal(both[0].tokens, both[1].tokens)
    np.testing.assert_allclose(both[0].nats.total, both[1].nats.total, rtol=1e-4, atol=1e-4)
    again = jax.jit(model.apply)(variables, both[0].tokens, labels, has_continuous)
    np.testing.assert_allclose(both[0].nats.total, again.total, rtol=1e-4, atol=1e-4)


THREE = pixelcnn_prior(K, 2, codes=3)


def test_a_code_sees_the_codes_before_it_at_its_position_and_all_of_earlier_positions():
    tokens, label = np.random.default_rng(0).integers(K, size=(1, 2, 3, 3), dtype=np.int32), jnp.zeros(1, int)
    variables = random_variables(THREE, tokens, label)
    score = jax.jit(lambda tokens: THREE.apply(variables, tokens, label).of_each_code.reshape(6, 3))
    before, place = score(tokens), 2
    for level in range(3):
        changed = tokens.copy()
        changed.reshape(6, 3)[place, level] += 1 if tokens.reshape(6, 3)[place, level] == 0 else -1
        moved = np.asarray(score(changed) != before)
        assert not moved[:place].any()
        assert moved[place].tolist() == [False] * level + [True] * (3 - level)
        assert moved[place + 1 :].any(axis=0).all()


def test_nats_of_a_position_are_the_sum_over_its_codes():
    tokens, label = np.random.default_rng(1).integers(K, size=(4, 2, 3, 3), dtype=np.int32), jnp.zeros(4, int)
    nats = jax.jit(THREE.apply)(random_variables(THREE, tokens, label), tokens, label)
    assert nats.of_each_code.shape == (4, 2, 3, 3)
    np.testing.assert_allclose(nats.codes, nats.of_each_code.sum(axis=-1), rtol=1e-6)
    np.testing.assert_allclose(nats.of_latents().of_each_code.sum(axis=-1), nats.of_latents().total, rtol=1e-5)


def test_one_code_per_position_is_scored_by_the_code_head_alone():
    """The parameters of a prior over plain codes, and their likelihood bit for bit, are those of softmax(code_head)."""
    model = pixelcnn_prior(K, 2)
    tokens, labels = np.random.default_rng(0).integers(K, size=(4, 2, 3, 1), dtype=np.int32), jnp.arange(4) % 2
    variables = random_variables(model, tokens, labels)
    assert set(variables["params"]) == {"embedding", "code_head", "network"}
    assert variables["params"]["embedding"]["embedding"].shape == (K, 8)

    def by_formula(model, tokens, labels):
        features = model.network(model.embedding(tokens[..., 0]), labels)
        return -jnp.take_along_axis(jax.nn.log_softmax(model.code_head(features)), tokens, axis=-1)[..., 0]

    nats = jax.jit(model.apply)(variables, tokens, labels)
    assert nats.of_each_code is None
    formula = jax.jit(functools.partial(model.apply, method=by_formula))
    np.testing.assert_array_equal(nats.codes, formula(variables, tokens, labels))


def test_the_first_of_several_codes_is_drawn_as_a_single_one():
    single, keys = pixelcnn_prior(K), jax.random.split(jax.random.key(0), 200)
    several = pixelcnn_prior(K, codes=3)
    variables = random_variables(several, np.zeros((1, 1, 1, 3), np.int32))
    params = dict(variables["params"])
    first = {"network": params["network"], "code_head": params["code_head"]}
    first["embedding"] = {"embedding": params["embedding"]["embedding"][:K]}
    drawn = jax.jit(lambda keys: sample(several, variables, None, keys, 1, 1).tokens)(keys)
    alone = jax.jit(lambda keys: sample(single, {"params": first}, None, keys, 1, 1).tokens)(keys)
    np.testing.assert_array_equal(drawn[..., :1], alone)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.5}, {"top_k": 2}, {"temperature": 2.0, "top_p": 0.7}, {"guidance": 2.0}, {"temperature": 0}],
    ids=str,
)
def test_options_reshape_the_distribution_of_every_code_of_a_position(options):
    model, guidance = pixelcnn_prior(K, 2, codes=2), options.get("guidance", 0.0)
    filtering = {name: value for name, value in options.items() if name != "guidance"}
    options = SamplingOptions(**options)
    variables = random_variables(model, np.zeros((1, 1, 1, 2), np.int32), jnp.zeros(1, int))
    pairs = np.array(list(itertools.product(range(K), repeat=2)), np.int32)

    def log_probabilities(model, label, level):
        """Return those of the code `level` of each pair, with the options, [K²]."""

        def logits(label):
            labels = jnp.full(len(pairs), label)
            features = model.features(pairs[:, None, None], labels, None)[:, 0, 0]
            return model.code_logits(model.next_context(features, pairs[:, 0], 0) if level else features, level)

        mixed = (1 + guidance) * logits(label) - guidance * logits(-1)
        rows = jax.nn.log_softmax(filter_logits(mixed, **filtering))
        return rows[jnp.arange(len(pairs)), pairs[:, level]]

    of_level = jax.jit(functools.partial(model.apply, variables, 1, method=log_probabilities), static_argnums=0)
    expected = np.exp(np.asarray(of_level(0) + of_level(1), np.float64))
    np.testing.assert_allclose(expected.sum(), 1.0, atol=1e-5)
    keys = jax.random.split(jax.random.key(0), 20_000)
    labels = jnp.ones(len(keys), int)
    drawn = jax.jit(lambda keys: sample(model, variables, labels, keys, 1, 1, options=options).tokens)(keys)
    counts = np.bincount(np.asarray(drawn).reshape(-1, 2) @ [K, 1], minlength=K * K)
    assert not counts[expected == 0].any()
    possible = expected > 0
    if possible.sum() > 1:
        of_possible = expected[possible] / expected[possible].sum() * len(keys)
        assert chisquare(counts[possible], of_possible).pvalue > 1e-3


def test_several_codes_and_a_continuous_part_are_refused_when_the_prior_is_made():
    with pytest.raises(ArgumentError, match=r"^codes_per_position=2: must be 1 for a prior with heads"):
        pixelcnn_prior(K, heads=(GAINS,), codes=2)
    with pytest.raises(ArgumentError, match=r"^codes_per_position=0: must be at least 1"):
        pixelcnn_prior(K, codes=0)


MODEL = prior_of("pixelcnn", "combined", (3, 5))
HAS_GAIN = HEADS["combined"][1]


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, tokens_of("combined", 1, 3, 5), jnp.zeros(1, int), HAS_GAIN)


@functools.partial(jax.jit, static_argnames="options")
def draw(variables, labels, keys, kept=None, options=DEFAULT_OPTIONS):
    return sample(MODEL, variables, labels, keys, 3, 5, has_continuous=HAS_GAIN, options=options, kept=kept)


def test_a_sample_depends_on_its_own_key_and_label_only(variables):
    keys, labels = jax.random.split(jax.random.key(0), 8), jnp.arange(8) % 2
    whole = draw(variables, labels, keys).tokens
    np.testing.assert_array_equal(whole[2:5], draw(variables, labels[2:5], keys[2:5]).tokens)
    np.testing.assert_array_equal(whole[::-1], draw(variables, labels[::-1], keys[::-1]).tokens)
    assert len(np.unique(whole, axis=0)) == len(whole)
    other = draw(variables, labels, jax.random.split(jax.random.key(1), 8)).tokens
    assert np.all(np.any(whole != other, axis=(1, 2, 3)))


def test_what_is_kept_is_kept_and_the_rest_is_drawn(variables):
    keys, labels = jax.random.split(jax.random.key(0), 16), jnp.zeros(16, int)
    given = jnp.asarray(tokens_of("combined", 16, 3, 5))
    completed = draw(variables, labels, keys, top_rows(given, 2)).tokens
    np.testing.assert_array_equal(completed[:, :2], given[:, :2])
    assert np.all(np.any(completed[:, 2] != given[:, 2], axis=(1, 2)))
    of_two = jnp.asarray(tokens_of("vq, two codes", 16, 3, 5))
    two = prior_of("pixelcnn", "vq, two codes", (3, 5))
    params = random_variables(two, of_two, labels)
    draw_two = jax.jit(lambda kept: sample(two, params, labels, keys, 3, 5, kept=kept).tokens)
    completed = draw_two(top_rows(of_two, 2))
    np.testing.assert_array_equal(completed[:, :2], of_two[:, :2])
    assert np.all(np.any(completed[:, 2] != of_two[:, 2], axis=1).any(axis=0))  # either code is drawn
    np.testing.assert_array_equal(draw_two(all_codes(of_two)), of_two)
    varied = np.asarray(draw(variables, labels, keys, all_codes(given)).tokens)
    np.testing.assert_array_equal(varied[..., 0], given[..., 0])
    assert (varied[..., 1] != given[..., 1]).any()
    assert not varied[~SOMEWHERE[varied[..., 0]], 1].any()


OTHER_VALUES = {"temperature": 0.1, "top_k": 1, "top_p": 0.1, "guidance": 5.0, "continuous_temperature": 0.0}


def test_options_of_codes_are_those_that_change_nothing_where_codes_are_given(variables):
    keys, labels = jax.random.split(jax.random.key(0), 16), jnp.zeros(16, int)
    given = all_codes(jnp.asarray(tokens_of("combined", 16, 3, 5)))
    drawn = draw(variables, labels, keys, given).tokens
    for field in dataclasses.fields(SamplingOptions):
        options = SamplingOptions(**{field.name: OTHER_VALUES[field.name]})
        same = jnp.array_equal(drawn, draw(variables, labels, keys, given, options).tokens)
        assert same == (field.name in CodeSamplingOptions.__dataclass_fields__)


def test_options_that_are_on_alike_share_a_program_and_draw_the_same(variables):
    keys, labels = jax.random.split(jax.random.key(0), 16), jnp.arange(16) % 2

    @jax.jit
    def draw_by(controls):
        return sample(MODEL, variables, labels, keys, 3, 5, has_continuous=HAS_GAIN, options=controls).tokens

    plain, *drawn = (
        (draw_by(options.controls()), draw(variables, labels, keys, options=options).tokens)
        for options in (SamplingOptions(), SamplingOptions(0.7, 2, 0.9, 1.5), SamplingOptions(2.0, 4, 0.99, 0.5))
    )
    for by_controls, by_options in (plain, *drawn):
        np.testing.assert_array_equal(by_controls, by_options)
    assert not np.array_equal(drawn[0][0], drawn[1][0])
    assert draw_by._cache_size() == 2  # without any, and with all of them


def test_guidance_by_zero_is_none_and_the_more_the_likelier_the_class(variables):
    keys = jax.random.split(jax.random.key(0), 500)
    labels = jnp.ones(len(keys), int)
    apply = jax.jit(MODEL.apply)

    def evidence(options):
        """Return by how much the draws are likelier under their class than without one."""
        tokens = draw(variables, labels, keys, options=options).tokens
        nats = [apply(variables, tokens, each, HAS_GAIN).codes.sum((1, 2)).mean() for each in (labels, -labels)]
        return float(nats[1] - nats[0])

    none, some, much = (evidence(SamplingOptions(guidance=w)) for w in (0.0, 1.0, 3.0))
    assert none < some < much


def code_logits(model, tokens, labels):
    return model.code_logits(model.features(tokens, labels, HAS_GAIN))


def test_temperature_zero_is_greedy_in_codes_and_in_bins(variables):
    keys, labels = jax.random.split(jax.random.key(0), 4), jnp.zeros(4, int)
    tokens = draw(variables, labels, keys, options=SamplingOptions(temperature=0, continuous_temperature=0)).tokens
    np.testing.assert_array_equal(tokens, np.broadcast_to(tokens[:1], tokens.shape))
    logits = jax.jit(functools.partial(MODEL.apply, method=code_logits))(variables, tokens, labels)
    best = logits.argmax(-1)
    np.testing.assert_array_equal(tokens[..., 0], best)


def test_in_bfloat16_the_likelihood_on_the_way_is_nearly_that_of_one_pass():
    model = MODEL.clone(network=MODEL.network.clone(compute_dtype="bfloat16"))
    tokens = tokens_of("combined", 64, 3, 5)
    labels, keys = jnp.arange(64) % 2, jax.random.split(jax.random.key(0), 64)
    variables = random_variables(model, tokens, labels, HAS_GAIN)
    drawn = jax.jit(lambda keys: sample(model, variables, labels, keys, 3, 5, has_continuous=HAS_GAIN))(keys)
    again = jax.jit(model.apply)(variables, drawn.tokens, labels, HAS_GAIN)
    np.testing.assert_allclose(drawn.nats.total, again.total, atol=0.1)  # sums of products rounded to 2^-8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("continuous_temperature", float("inf")),
        ("guidance", -1.0),
        ("guidance", float("nan")),
    ],
)
def test_an_option_out_of_range_is_one_clear_line(name, value):
    with pytest.raises(ArgumentError, match=rf"^{name}={value}: must be .*$"):
        sample(MODEL, {}, None, jax.random.split(jax.random.key(0), 1), 2, 2, options=SamplingOptions(**{name: value}))


def test_guidance_needs_classes():
    with pytest.raises(ArgumentError, match=r"^guidance=1\.0: needs a prior that is conditional"):
        SamplingOptions(guidance=1.0).check(num_classes=0)


def test_a_given_continuous_part_belongs_to_a_given_code():
    kept = all_codes(jnp.zeros((1, 2, 2, 2), jnp.int32))
    assert isinstance(kept, Kept)
    assert kept.codes.all()
    assert not kept.continuous.any()


@pytest.mark.parametrize(("network", "latent"), ALL_PARTS)
def test_a_known_latent_is_scored_without_a_loop(network, latent):
    model = prior_of(network, latent, (3, 4))
    tokens, labels = tokens_of(latent, 2, 3, 4), np.zeros(2, np.int32)
    arguments = (random_variables(model, tokens, labels, HEADS[latent][1]), tokens, labels, HEADS[latent][1])
    score = jax.grad(lambda *args: model.apply(*args).total.sum())
    program = str(jax.make_jaxpr(score)(*arguments))
    assert "dot_general" in program
    assert "while[" not in program
    assert "scan[" not in program


def test_a_continuous_part_needs_to_be_told_where_it_is():
    model, tokens = prior_of("pixelcnn", "projected", (2, 2)), tokens_of("projected", 1, 2, 2)
    with pytest.raises(ArgumentError, match=r"^has_continuous: needed by a prior with heads"):
        model.init(jax.random.key(0), tokens, np.zeros(1, np.int32))


def test_a_program_draws_any_number():
    """As exported programs do, in which the size of the batch is a symbol; a PixelCNN's are in test_export_run.py."""
    prior, has_continuous = prior_of("transformer", "frequency", (2, 2)), HEADS["frequency"][1]
    variables = random_variables(prior, tokens_of("frequency", 1, 2, 2), jnp.zeros(1, jnp.int32), has_continuous)
    options = SamplingOptions(guidance=0.5, top_p=0.9)

    @jax.jit
    def draw(labels):
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(3)))(jnp.arange(labels.shape[0]))
        return sample(prior, variables, labels, keys, 2, 2, has_continuous=has_continuous, options=options).tokens

    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(draw)(jax.ShapeDtypeStruct((batch,), jnp.int32))
    labels = np.arange(6, dtype=np.int32) % 2
    np.testing.assert_array_equal(exported.call(labels), draw(labels))
