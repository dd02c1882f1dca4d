"""One codebook in its variants: where codes are kept, what length they have, what they learn from."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax import latents
from hvq_jax.errors import ArgumentError
from hvq_jax.options import field_names
from hvq_jax.quantizers import QUANTIZERS, make_quantizer
from hvq_jax.quantizers.bottleneck import CodebookQuantizer, QuantizerState
from hvq_jax.quantizers.learning import LEARNING_RULES
from hvq_jax.quantizers.options import CodebookOptions, LatentOptions
from tests.methods import METHODS
from tests.quantizers.compiled import compiled

K, D = 6, 4


NEEDED_OF_LATENT = {name: {} for name in LEARNING_RULES} | {"diveq": {"estimator": "diveq", "direction_noise": 0.0}}


def quantizer(mode="projected", learning="ema", **codebook_options):
    latent_options = LatentOptions(mode=mode, num_codes=K, dim=D, **NEEDED_OF_LATENT[learning])
    return compiled(CodebookQuantizer(latent_options, CodebookOptions(learning=learning, **codebook_options)))


def vectors(seed=1, size=40):
    return 3 * jax.random.normal(jax.random.key(seed), (size, 2, D))


def take_step(model, params, state, z_e):
    return model.step(params, state, z_e, jax.random.key(2), None)


def start_from_data(model, params, state, z_e):
    return model.start_from_data(params, state, z_e, jax.random.key(4), None)


@pytest.mark.parametrize("assignment", ["euclidean", "cosine", "projection"])
def test_a_spherical_codebook_has_unit_norm_and_leaves_the_length_to_the_gain(assignment):
    model = quantizer(unit_norm="codes", assignment=assignment, decay=0.5)
    params, state = model.init(jax.random.key(0))
    for seed in range(3):
        z_e = vectors(seed)
        latent, step = take_step(model, params, state, z_e)
        state = step.state
        np.testing.assert_allclose(np.linalg.norm(model.codes(params, state), axis=-1), np.ones(K), rtol=1e-5)
        np.testing.assert_allclose(latent.gain, latents.signed_length(z_e, latent.z_q), rtol=1e-4, atol=1e-5)
    # Only the nearest line may be behind a vector's back.
    assert (np.asarray(latent.gain) < -1e-6).any() == (assignment == "projection")


def test_a_step_of_a_spherical_codebook_takes_the_direction_of_the_averaged_sum():
    model = quantizer(unit_norm="codes", assignment="projection", decay=0.9, revive_below=0.0)
    start = latents.unit(jax.random.normal(jax.random.key(3), (K, D)))
    params, state = model.init(jax.random.key(0))
    state = state.replace(learned=state.learned.replace(codes=start, sums=2 * start, counts=jnp.full(K, 2.0)))
    z_e = vectors()
    _, step = take_step(model, params, state, z_e)
    z_e, start = np.asarray(z_e, np.float64).reshape(-1, D), np.asarray(start, np.float64)
    inner = z_e @ start.T
    nearest = np.abs(inner).argmax(1)
    weight = 0.1 * K / len(z_e)  # sums are in units of the mean count
    for j in range(K):
        signs = np.sign(inner[nearest == j, j])
        total = 0.9 * 2 * start[j] + weight * (signs[:, None] * z_e[nearest == j]).sum(0)
        np.testing.assert_allclose(model.codes(params, step.state)[j], total / np.linalg.norm(total), atol=1e-5)


def test_codes_by_line_lower_the_error_of_projection_where_nearest_codes_do_not():
    """On vectors ± along six axes, six lines are enough."""
    axes = latents.unit(jax.random.normal(jax.random.key(5), (K, D)))
    signs_and_lengths = jnp.array([-3.0, -1.0, 1.0, 2.0])
    z_e = (signs_and_lengths[:, None, None] * axes).reshape(-1, D)

    def error(assignment):
        model = quantizer(unit_norm="codes", assignment=assignment, decay=0.0)
        params, state = model.init(jax.random.key(0))
        for _ in range(10):
            latent, step = take_step(model, params, state, z_e)
            state = step.state
        return float(jnp.mean(jnp.square(z_e - latent.projection)))

    assert error("projection") < 0.5 * error("cosine")


@pytest.mark.parametrize("learning", LEARNING_RULES)
def test_codes_of_unit_norm_are_what_every_part_sees(learning):
    model = quantizer("vq", learning=learning, unit_norm="both", init="uniform")
    params, state = model.init(jax.random.key(0))
    z_e = latents.unit(vectors())
    latent, step = take_step(model, params, state, z_e)
    np.testing.assert_allclose(np.linalg.norm(latent.z_bar, axis=-1), np.ones((40, 2)), rtol=1e-5)
    np.testing.assert_array_equal(latent.z_q, model.codes(params, state)[latent.indices])
    np.testing.assert_array_equal(step.codes, model.codes(params, state))
    # On the sphere the nearest code is that of the nearest direction.
    by_cosine = quantizer("vq", learning=learning, unit_norm="both", init="uniform", assignment="cosine")
    indices = [each.quantize(params, state, z_e).indices for each in (by_cosine, model)]
    np.testing.assert_array_equal(*indices)


def test_the_gradient_of_normalised_codes_is_tangent_to_the_sphere():
    model = quantizer("vq", learning="gradient", unit_norm="both", init="uniform")
    codes = jax.random.normal(jax.random.key(1), (K, D))

    def pull(codes):
        latent = model.quantize({"codes": codes}, QuantizerState(jnp.zeros(K)), latents.unit(vectors()))
        return jnp.mean(jnp.square(latent.z_q - latents.unit(vectors())))

    gradient = jax.jit(jax.grad(pull))(codes)
    assert np.abs(gradient).max() > 1e-4
    np.testing.assert_allclose(jnp.sum(gradient * codes, -1), np.zeros(K), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "init", "from_data"),
    [
        *(({"revive_below": below}, "uniform", False) for below in (0.0, 0.08, 1.0)),
        *(({"revive_below": below}, "data", False) for below in (0.0, 0.08, 1.0)),  # by revival, in the first step
        *(({"revive_below": below}, "kmeans", True) for below in (0.0, 0.08, 1.0)),
        ({"unit_norm": "codes"}, "data", False),
        ({"learning": "gradient"}, "uniform", False),
        ({"learning": "gradient"}, "data", True),
        ({"learning": "gradient"}, "kmeans", True),
        ({"learning": "simvq"}, "uniform", False),
        ({"learning": "simvq"}, "data", True),
        ({"learning": "simvq"}, "kmeans", True),
    ],
)
def test_where_codes_start(options, init, from_data):
    model = quantizer(**options, init=init)
    assert model.starts_from_data == from_data
    z_e, fresh = vectors(), model.init(jax.random.key(0))
    if not from_data:
        _, step = take_step(model, *fresh, z_e)
        assert step.revived.all() == step.revived.any() == (init == "data")
        return
    started = start_from_data(model, *fresh, z_e)
    codes = model.codes(*started)
    if init == "data":
        assert {tuple(code) for code in np.asarray(codes)} <= {tuple(z) for z in np.asarray(z_e).reshape(-1, D)}
    # Nothing is revived in the first step: it would undo the start.
    _, step = take_step(model, *started, z_e)
    assert not step.revived.any()
    np.testing.assert_array_equal(step.codes, codes)


@pytest.mark.parametrize("learning", ["gradient", "simvq"])
def test_a_gradient_moves_the_codes_in_use_and_by_a_learned_map_all_codes(learning):
    model = quantizer("vq", learning=learning, init="uniform")
    params, state = model.init(jax.random.key(0))
    z_e = vectors()[:2]  # four vectors: not all codes are in use

    def pull(params):
        latent, step = take_step(model, params, state, z_e)
        return jnp.mean(jnp.square(latent.z_q - z_e)), step

    gradients, step = jax.jit(jax.grad(pull, has_aux=True))(params)
    after = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradients)
    moved = (model.codes(after, step.state) != model.codes(params, state)).any(-1)
    used = step.counts > 0
    assert not used.all()
    np.testing.assert_array_equal(moved, used if learning == "gradient" else np.ones(K, bool))
    # What the rule keeps besides its parameters stays as it was.
    jax.tree.map(np.testing.assert_array_equal, step.state.learned, state.learned)


@pytest.mark.parametrize(
    ("family", "mode", "options", "message"),
    [
        ("codebook", "combined", {"assignment": "projection"}, "codebook.assignment=projection: chooses codes up to"),
        ("codebook", "vq", {"learning": "tests.methods:RULE"}, "codebook.learning=tests.methods:RULE: cannot be"),
        ("residual", "vq", {}, "codebook.depth=1: codebook.family=residual needs from 2 to 4 codebooks"),
        ("residual", "projected", {"depth": 2}, "latent.mode=projected: codebook.family=residual needs latent.mode=vq"),
        ("fsq", "combined", {}, "latent.mode=combined: codebook.family=fsq needs latent.mode=vq"),
        (
            "hvq_jax.quantizers.scalar:ScalarQuantizer",
            "vq",
            {"decay": 0.5},
            "codebook.decay=0.5: codebook.family=hvq_jax.quantizers.scalar:ScalarQuantizer has no such option",
        ),
    ],
)
def test_a_quantizer_refuses_options_that_do_not_fit_it(family, mode, options, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        make_quantizer(LatentOptions(mode=mode), CodebookOptions(family=family, **options))


# A value of each option that is not its default.
CHANGED = {
    "learning": "simvq",
    "unit_norm": "both",
    "init": "kmeans",
    "decay": 0.5,
    "revive_below": 1.0,
    "assignment": "cosine",
    "depth": 3,
    "levels": (5, 4),
    "groups": 4,
    "share_codes": True,
    "bits": 3,
}
NEEDED = {name: {"depth": 2} if "residual" in name else {} for name in QUANTIZERS}


def two_steps(family, **options):
    """Return the shapes and the values of everything after two steps."""
    options = CodebookOptions(family=family, **NEEDED[family] | options)
    model = compiled(make_quantizer(LatentOptions(mode="vq", num_codes=K, dim=D), options))
    arrays = model.init(jax.random.key(0))
    if model.starts_from_data:
        arrays = start_from_data(model, *arrays, vectors())
    for seed in range(2):
        latent, step = take_step(model, *arrays, vectors(seed))
        arrays = arrays[0], step.state
    return [(leaf.shape, leaf.tolist()) for leaf in jax.tree.leaves((arrays, latent, step))]


@pytest.mark.parametrize("family", NEEDED)
def test_every_option_changes_what_a_quantizer_does_or_is_refused(family):
    assert CHANGED.keys() == field_names(CodebookOptions) - {"family"}
    by_default = two_steps(family)
    for name, value in CHANGED.items():
        if name in QUANTIZERS[family].option_names:
            assert two_steps(family, **{name: value}) != by_default, name
            continue
        users = "|".join(other for other, kind in QUANTIZERS.items() if name in kind.option_names)
        with pytest.raises(ArgumentError) as error:
            two_steps(family, **{name: value})
        assert error.value.argument == f"codebook.{name}={value}"
        assert error.value.problem == (
            f"codebook.family={family} has no such option: choose codebook.family={users}, "
            f"or codebook.{name}={CodebookOptions.__dataclass_fields__[name].default}"
        )


@pytest.mark.parametrize("learning", LEARNING_RULES)
def test_a_learning_rule_refuses_options_that_it_has_no_field_for(learning):
    for name in ("decay", "revive_below"):
        options = CodebookOptions(learning=learning, **{name: 0.5})
        if learning in ("ema", "diveq"):
            latent_options = LatentOptions(mode="vq", **NEEDED_OF_LATENT[learning])
            assert getattr(make_quantizer(latent_options, options).rule, name) == 0.5
            continue
        line = f"codebook.{name}=0.5: codebook.learning={learning} has no such option: choose codebook.learning=ema|"
        with pytest.raises(ArgumentError, match=re.escape(line)):
            make_quantizer(LatentOptions(), options)


def test_the_help_of_an_option_says_which_quantizers_use_it():
    for field in dataclasses.fields(CodebookOptions):
        users = {name for name, kind in QUANTIZERS.items() if field.name in kind.option_names}
        said = field.metadata["rule"].help.rpartition("(")[2].rstrip(")") if users else ""
        assert {phrase.split()[0] for phrase in said.split(", ") if phrase} == users, field.name


def learn(model, batches, axis_name=None):
    """Return codes, frequencies and counts after a few steps, by gradient descent where they are parameters."""
    quantizer, key = model.quantizer, jax.random.key(0)
    params, state = quantizer.init(jax.random.key(1))
    if quantizer.starts_from_data:
        params, state = quantizer.start_from_data(params, state, batches[0], key, axis_name)

    def learn_from(arrays, numbered):
        params, state = arrays
        number, z_e = numbered

        def loss(params):
            latent, step = quantizer.step(params, state, z_e, jax.random.fold_in(key, number), axis_name)
            value = jnp.mean(jnp.square(latent.z_q - z_e))
            if model.loss.entropy_weight:
                value += quantizer.entropy(z_e, step, model.loss.entropy_temperature, axis_name)
            return value, step

        gradients, step = jax.grad(loss, has_aux=True)(params)
        if axis_name:
            gradients = jax.lax.pmean(gradients, axis_name)
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradients)
        return (params, step.state), (step.counts, step.revived)

    (params, state), seen = jax.lax.scan(learn_from, (params, state), (jnp.arange(len(batches)), batches))
    return quantizer.codes(params, state), state.frequency, seen


@pytest.mark.parametrize("method", METHODS)
def test_one_device_and_four_learn_the_same_codebook(method):
    """Of the same global batches: assignments, frequencies and revivals exactly, codes to the order of addition.

    Sums of at most 64 float32 numbers of size 3 round by 1e-6 or so, and a few steps add that up.
    """
    model = METHODS[method]
    batches = [3 * jax.random.normal(jax.random.key(seed), (16, 2, 2, D)) for seed in range(3)]
    batches = jnp.stack([latents.unit(z_e) if model.codebook_options.unit_norm == "both" else z_e for z_e in batches])
    codes, frequency, seen = jax.jit(lambda batches: learn(model, batches))(batches)
    shards = batches.reshape(3, 4, 4, 2, 2, D).swapaxes(0, 1)
    many = jax.pmap(lambda batches: learn(model, batches, "devices"), "devices")(shards)
    for leaf in jax.tree.leaves(many):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    four = jax.tree.map(lambda leaf: leaf[0], many)
    np.testing.assert_allclose(four[0], codes, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, four[1:], (frequency, seen))
    assert np.abs(codes).max() > 0.1
    if model.codebook_options.unit_norm != "none":
        np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), np.ones(codes.shape[:-1]), rtol=1e-5)
