import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings, strategies as st

from hvq_jax.errors import ArgumentError
from hvq_jax.priors.transformer import Transformer

MODEL = Transformer((4, 5), num_classes=3, width=8, num_layers=2, num_heads=2)


def random_variables(model, *, scale=0.3):
    """Return random parameters, including biases, without compiling `init`."""
    labels = jnp.zeros(1, jnp.int32) if model.num_classes else None
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *model.grid, model.width)), labels)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, scale, leaf.shape).astype(np.float32), shapes)


def random_embedded(model, batch, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, *model.grid, model.width)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(MODEL.apply)


@functools.partial(jax.jit, static_argnums=0)
def one_by_one(model, variables, embedded, labels):
    """Return the features of a grid computed one position at a time, like a sampler."""
    call = functools.partial(model.apply, variables)

    def next_position(memory, inputs):
        column, latest = inputs
        memory, features = call(memory, column, method="next_features")
        return call(memory, latest, column, method="remember"), features

    def next_row(memory, row):
        memory = call(memory, labels, method="begin_row")
        return jax.lax.scan(next_position, memory, (jnp.arange(model.grid[1]), row))

    rows = embedded.transpose(1, 2, 0, 3)
    _, features = jax.lax.scan(next_row, model.blank_memory(len(embedded), *model.grid), rows)
    return features.transpose(2, 0, 1, 3)


@pytest.mark.parametrize(
    ("grid", "num_classes", "width", "num_layers", "num_heads"),
    [((8, 8), 10, 64, 6, 4), ((2, 3), 0, 12, 1, 3), ((1, 7), 1, 8, 2, 1)],
)
def test_the_number_of_parameters(grid, num_classes, width, num_layers, num_heads):
    variables = random_variables(Transformer(grid, num_classes, width, num_layers, num_heads))
    of_a_layer = 12 * width**2 + 13 * width  # four matrices with biases, two normalisations
    of_positions = 1 + sum(grid) + num_classes + 2  # start, rows, columns, classes, the last normalisation
    expected = num_layers * (of_a_layer + 4 * num_classes * width) + of_positions * width
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected


@pytest.mark.parametrize(("grid", "num_layers"), [((4, 5), 1), ((4, 5), 3), ((1, 6), 1), ((6, 1), 1)])
def test_a_position_sees_every_earlier_one_and_no_other(grid, num_layers):
    model = MODEL.clone(grid=grid, num_layers=num_layers)
    count = grid[0] * grid[1]
    embedded = np.repeat(random_embedded(model, 1), count + 1, axis=0)
    changed = embedded.reshape(count + 1, count, model.width)
    changed[np.arange(count), np.arange(count)] += np.random.default_rng(1).normal(size=(count, model.width))
    labels = np.ones(count + 1, np.int32)
    features = jax.jit(model.apply)(random_variables(model), embedded, labels)
    *after, before = np.asarray(features).reshape(count + 1, count, model.width)
    change = np.abs(np.stack(after) - before).max(axis=-1)  # of the later axis by the earlier
    sees = np.triu(np.ones((count, count), bool), 1)
    assert change[~sees].max() == 0
    assert change[sees].min() > 1e-4


@settings(max_examples=20)
@given(position=st.integers(0, 19), seed=st.integers(0, 2**16), scale=st.sampled_from([1e-2, 1.0, 1e4]))
def test_what_is_not_yet_known_changes_nothing(variables, apply, position, seed, scale):
    embedded = random_embedded(MODEL, 1)
    changed = embedded.copy().reshape(20, -1)
    changed[position:] += scale * np.random.default_rng(seed).normal(size=changed[position:].shape)
    labels = np.array([1], np.int32)
    before, after = (
        np.asarray(apply(variables, x.reshape(embedded.shape), labels)).reshape(20, -1) for x in (embedded, changed)
    )
    np.testing.assert_array_equal(before[: position + 1], after[: position + 1])
    if position < 19:
        assert np.all(np.any(before[position + 1 :] != after[position + 1 :], axis=-1))


# Float32 sums in another order. In bfloat16 each layer may round a value to its neighbour, 2^-7 away.
@pytest.mark.parametrize(
    ("num_classes", "num_layers", "num_heads", "grid", "compute_dtype", "tolerance"),
    [
        (3, 3, 2, (4, 5), "float32", 1e-5),
        (0, 2, 4, (5, 2), "float32", 1e-5),
        (3, 1, 1, (1, 6), "float32", 1e-5),
        (0, 2, 2, (6, 1), "float32", 1e-5),
        (3, 2, 8, (1, 1), "float32", 1e-5),
        (3, 2, 2, (3, 4), "bfloat16", 0.06),
    ],
)
def test_features_computed_one_by_one_are_those_of_one_pass(
    num_classes, num_layers, num_heads, grid, compute_dtype, tolerance
):
    model = Transformer(grid, num_classes, 8, num_layers, num_heads, dropout=0.5, compute_dtype=compute_dtype)
    variables = random_variables(model)
    embedded = random_embedded(model, 3)
    labels = jnp.array([2, 0, -1]) if num_classes else None
    expected = jax.jit(model.apply)(variables, embedded, labels)
    assert expected.shape == embedded.shape
    assert expected.dtype == jnp.float32
    features = one_by_one(model, variables, embedded, labels)
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, expected, rtol=tolerance, atol=tolerance)


def test_other_grids_of_the_batch_change_nothing(variables, apply):
    embedded = random_embedded(MODEL, 3)
    labels = np.array([0, 2, -1], np.int32)
    other = np.concatenate([embedded[:1], 100 * random_embedded(MODEL, 2, seed=1)])
    for features in (apply, functools.partial(one_by_one, MODEL)):
        one, two = features(variables, embedded, labels), features(variables, other, np.array([0, 1, 1], np.int32))
        np.testing.assert_array_equal(one[0], two[0])
        assert np.any(one[1:] != two[1:])


def test_no_class_is_a_condition_of_zero_and_no_class_of_its_own(variables, apply):
    embedded = np.repeat(random_embedded(MODEL, 1), 4, axis=0)
    features = apply(variables, embedded, np.array([-1, 0, 1, 2], np.int32))
    for label in range(3):
        assert np.all(np.any(features[0] != features[label + 1], axis=-1))
    params = flatten_dict(variables["params"])
    others = {path: leaf for path, leaf in params.items() if "class_embedding" not in path}
    unconditional = jax.jit(MODEL.clone(num_classes=0).apply)({"params": unflatten_dict(others)}, embedded[:1])
    np.testing.assert_allclose(features[0], unconditional[0], rtol=1e-5, atol=1e-5)


def test_a_label_out_of_range_is_not_silently_another(variables, apply):
    embedded = random_embedded(MODEL, 4)
    labels = np.array([2, 3, -1, -2], np.int32)
    for features in (apply, functools.partial(one_by_one, MODEL)):
        unknown = np.isnan(features(variables, embedded, labels))
        np.testing.assert_array_equal(unknown.all(axis=(1, 2, 3)), [False, True, False, True])
        assert not unknown[::2].any()


def test_labels_are_given_exactly_to_conditional_models(variables):
    embedded = random_embedded(MODEL, 1)
    with pytest.raises(ArgumentError, match=r"^labels=None: Transformer with num_classes=3 needs a label [^\n]*"):
        MODEL.apply(variables, embedded)
    with pytest.raises(ArgumentError, match=r"^labels: Transformer with num_classes=0 takes none"):
        MODEL.clone(num_classes=0).init(jax.random.key(0), embedded, np.array([1]))
    with pytest.raises(ArgumentError, match="num_classes=3 needs a label"):
        MODEL.apply(variables, MODEL.blank_memory(1, *MODEL.grid), method="begin_row")


def test_another_grid_or_a_width_that_heads_do_not_divide_is_refused(variables):
    with pytest.raises(ArgumentError, match=r"^grid=\(4, 5\): this Transformer was given a grid of 5×4"):
        MODEL.apply(variables, np.zeros((1, 5, 4, 8)), np.array([1]))
    with pytest.raises(ArgumentError, match=r"^num_heads=3: must divide width=8"):
        MODEL.clone(num_heads=3).init(jax.random.key(0), random_embedded(MODEL, 1), np.array([1]))


def test_dropout_is_of_training_only_and_of_its_key(variables, apply):
    model = MODEL.clone(dropout=0.5)
    embedded, labels = random_embedded(MODEL, 1), np.array([1], np.int32)
    expected = apply(variables, embedded, labels)
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, embedded, labels), expected)
    not_dropped = jax.jit(functools.partial(MODEL.apply, train=True))(variables, embedded, labels)
    np.testing.assert_array_equal(not_dropped, expected)

    train = jax.jit(lambda key: model.apply(variables, embedded, labels, train=True, rngs={"dropout": key}))
    one, same, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
    assert np.any(one != expected)


def test_gradients_are_finite_and_reach_every_parameter_in_either_dtype(variables):
    embedded, labels = random_embedded(MODEL, 5), np.array([0, 1, 2, -1, -1])
    weights = random_embedded(MODEL, 5, seed=1)  # the plain sum of normalised features is a constant

    def loss(variables, embedded, model):
        features = model.apply(variables, embedded, labels)
        return (features * weights).sum(), features

    differentiate = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    (exact, of_embedded), exact_features = differentiate(variables, embedded, MODEL)
    for gradient in jax.tree.leaves(exact):
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0)
    assert np.all(np.isfinite(of_embedded))
    seen = np.any(of_embedded != 0, axis=-1).reshape(5, 20)
    np.testing.assert_array_equal(seen, np.tile(np.arange(20) < 19, (5, 1)))

    (rounded, _), features = differentiate(variables, embedded, MODEL.clone(compute_dtype="bfloat16"))
    np.testing.assert_allclose(features, exact_features, rtol=0.05, atol=0.05)
    for one, other in zip(jax.tree.leaves(rounded), jax.tree.leaves(exact), strict=True):
        assert one.dtype == jnp.float32
        assert np.linalg.norm(one - other) <= 0.1 * np.linalg.norm(other) + 1e-3


def test_initially_branches_are_small_and_biases_zero():
    model = Transformer((2, 2), width=64, num_layers=2)
    params = jax.jit(model.init)(jax.random.key(0), random_embedded(model, 1))["params"]
    fans = {"query_key_value": 4, "attention_output": 2, "hidden": 5, "hidden_output": 5}
    for name, fan in fans.items():
        limit = (6 / (fan * 64)) ** 0.5 / (2 if name.endswith("output") else 1)
        dense = params["layer_1"][name]
        assert 0.98 * limit < np.abs(dense["kernel"]).max() <= limit
        assert np.all(dense["bias"] == 0)


def test_the_class_is_a_token_in_front_and_a_condition_of_every_layer(variables, apply):
    """Either alone makes a difference; initially the token does, and scales and shifts begin at zero."""
    embedded, labels = np.repeat(random_embedded(MODEL, 1), 2, axis=0), np.array([0, 2], np.int32)
    params = flatten_dict(variables["params"])

    def without(kept):
        zero = {path: leaf if kept(path) else np.zeros_like(leaf) for path, leaf in params.items()}
        one, other = apply({"params": unflatten_dict(zero)}, embedded, labels)
        return np.any(one != other, axis=-1).all()

    of_layers = [path for path in params if "class_embedding" in path and len(path) == 3]
    assert len(of_layers) == MODEL.num_layers
    assert without(lambda path: path not in of_layers)
    assert without(lambda path: path in of_layers or "class_embedding" not in path)
    assert not without(lambda path: "class_embedding" not in path)
    initial = jax.jit(MODEL.init)(jax.random.key(0), embedded, labels)["params"]
    assert all(np.all(flatten_dict(initial)[path] == 0) for path in of_layers)
    assert np.std(initial["class_embedding"]["embedding"]) > 0.5
