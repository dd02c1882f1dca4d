import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hvq_jax.errors import ArgumentError
from hvq_jax.torch_reference.weights import pixelcnn_from_torch, pixelcnn_to_torch
from tests.priors.models import all_logits, logits_of, one_by_one, pixelcnn_prior, random_variables

GOLDEN = Path(__file__).parents[1] / "golden" / "pixelcnn_k32_d16_l4_7x7.npz"
NUM_CODES = 5
# With three layers every position of a 4×5 grid is in reach of every later one.
MODEL = pixelcnn_prior(NUM_CODES, num_classes=3, num_layers=3)
LABEL = jnp.array([1])


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, np.zeros((1, 4, 5, 1), np.int32), LABEL)


@pytest.fixture(scope="module")
def apply():
    return logits_of(MODEL)


def random_indices(seed, height, width):
    return np.random.default_rng(seed).integers(NUM_CODES, size=(1, height, width), dtype=np.int32)


def test_the_models_of_the_reference_have_its_number_of_parameters():
    tokens, labels = jnp.zeros((1, 7, 7, 1), jnp.int32), jnp.zeros(1, jnp.int32)
    sizes = {"width": 64, "num_layers": 15, "head_width": 512}
    shapes = jax.eval_shape(pixelcnn_prior(512, 10, **sizes).init, jax.random.key(0), tokens, labels)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1_841_472
    shapes = jax.eval_shape(pixelcnn_prior(512, **sizes).init, jax.random.key(0), tokens)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1_841_472 - 15 * 10 * 128


def test_logits_loss_and_gradients_agree_with_the_reference():
    golden = np.load(GOLDEN)
    model = pixelcnn_prior(32, num_classes=10, width=16, num_layers=4, head_width=512)
    state_dict = {k.removeprefix("param/"): golden[k] for k in golden if k.startswith("param/")}

    def loss_and_logits(variables):
        nats = model.apply(variables, golden["x"][..., None], golden["label"]).of_latents()
        return nats.codes.mean() / 49, model.apply(variables, golden["x"], golden["label"], method=all_logits)

    with_gradients = jax.jit(jax.value_and_grad(loss_and_logits, has_aux=True))
    (loss, logits), gradients = with_gradients(pixelcnn_from_torch(state_dict))
    np.testing.assert_allclose(logits.transpose(0, 3, 1, 2), golden["logits"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-6)
    masks = {
        "layers.0.vert_stack.weight": np.s_[:, :, -1],
        "layers.0.horiz_stack.weight": np.s_[:, :, :, -1],
    }
    for key, gradient in pixelcnn_to_torch(gradients).items():
        expected = golden[f"grad/{key}"].copy()
        if key in masks:  # the reference's masked entries carry gradients, ours must not
            assert np.all(gradient[masks[key]] == 0)
            expected[masks[key]] = 0
        distance = np.linalg.norm(gradient - expected)
        assert distance <= 1e-4 * np.linalg.norm(expected), key


@pytest.mark.parametrize(("height", "width"), [(4, 5), (1, 6), (6, 1)])
def test_a_position_sees_every_earlier_one_and_no_other(variables, apply, height, width):
    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 2**16),
        position=st.integers(0, height * width - 1),
        shift=st.integers(1, NUM_CODES - 1),
    )
    def check(seed, position, shift):
        indices = random_indices(seed, height, width)
        changed = indices.copy()
        changed.reshape(-1)[position] = (changed.reshape(-1)[position] + shift) % NUM_CODES
        before = np.asarray(apply(variables, indices, LABEL)).reshape(-1, NUM_CODES)
        after = np.asarray(apply(variables, changed, LABEL)).reshape(-1, NUM_CODES)
        differs = np.any(before != after, axis=-1)
        # The reach of three layers: 3 + 1 + 1 positions along a line.
        in_reach = np.arange(height * width) > position
        if 1 in (height, width):
            in_reach &= np.arange(height * width) <= position + 5
        np.testing.assert_array_equal(differs, in_reach)

    check()


def test_of_a_later_position_no_more_than_rounding_is_seen():
    model = pixelcnn_prior(NUM_CODES, num_layers=3, width=32)  # so wide that convolutions are filtered, on CPU
    indices = random_indices(2, 8, 8)
    features = jax.jit(functools.partial(model.apply, method="features"))
    variables = random_variables(model, indices[..., None])
    changed = indices.copy()
    changed[0, 5, 3] = (changed[0, 5, 3] + 1) % NUM_CODES
    before, after = (
        np.asarray(features(variables, given[..., None], None, None)).reshape(64, -1) for given in (indices, changed)
    )
    atol = 1e-5 * np.abs(before).max()
    np.testing.assert_allclose(after[:44], before[:44], rtol=0, atol=atol)
    alone = one_by_one(model, variables, indices[..., None]).reshape(64, -1)
    np.testing.assert_allclose(alone, before, rtol=0, atol=atol)
    assert np.abs(after - before)[44:].max() > 0.1


def test_the_mask_hides_whatever_its_kernel_entries_hold(variables, apply):
    indices = random_indices(0, 4, 5)
    noisy = jax.tree.map(np.copy, variables)
    noisy["params"]["network"]["layer_0"]["vertical"]["kernel"][-1] = 1e3
    noisy["params"]["network"]["layer_0"]["horizontal"]["kernel"][:, -1] = 1e3
    np.testing.assert_array_equal(apply(variables, indices, LABEL), apply(noisy, indices, LABEL))


def test_the_label_changes_the_logits_of_every_position(variables, apply):
    indices = random_indices(0, 4, 5)
    one = apply(variables, indices, jnp.array([1]))
    two = apply(variables, indices, jnp.array([2]))
    assert one.shape == (1, 4, 5, NUM_CODES)
    assert one.dtype == jnp.float32
    assert np.all(np.any(one != two, axis=-1))


# Float32 sums of up to 168 terms in another order. In bfloat16 such a sum may round to the neighbouring number, 2^-7
# away, in each layer anew.
@pytest.mark.parametrize(
    ("num_classes", "num_layers", "height", "width", "compute_dtype", "tolerance"),
    [
        (3, 3, 4, 5, "float32", 1e-5),
        (3, 3, 4, 5, "bfloat16", 0.03),
        (0, 3, 5, 2, "float32", 1e-5),
        (3, 1, 6, 4, "float32", 1e-5),
        (0, 2, 1, 6, "bfloat16", 0.03),
        (3, 4, 6, 1, "float32", 1e-5),
        (3, 2, 1, 1, "float32", 1e-5),
    ],
)
def test_features_computed_one_by_one_are_those_of_one_pass(
    num_classes, num_layers, height, width, compute_dtype, tolerance
):
    model = pixelcnn_prior(NUM_CODES, num_classes, num_layers=num_layers, compute_dtype=compute_dtype)
    tokens = np.random.default_rng(1).integers(NUM_CODES, size=(2, height, width, 1), dtype=np.int32)
    labels = jnp.array([2, 0]) if num_classes else None
    variables = random_variables(model, tokens, labels, seed=1)
    whole = jax.jit(functools.partial(model.apply, method="features"))(variables, tokens, labels, None)
    assert whole.dtype == jnp.float32
    np.testing.assert_allclose(one_by_one(model, variables, tokens, labels), whole, rtol=tolerance, atol=tolerance)


def test_an_index_or_label_out_of_range_is_not_silently_another(variables, apply):
    indices = random_indices(0, 4, 5)
    assert np.all(np.isnan(apply(variables, indices, jnp.array([3]))))
    indices[0, 0, 0] = NUM_CODES
    assert np.isnan(apply(variables, indices, LABEL)).any()


def test_no_class_is_an_embedding_of_zero(variables, apply):
    indices = random_indices(0, 4, 5)
    without = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if "class_embedding" in jax.tree_util.keystr(path) else leaf, variables
    )
    np.testing.assert_array_equal(apply(variables, indices, jnp.array([-1])), apply(without, indices, LABEL))


def test_labels_are_given_exactly_to_conditional_models(variables):
    indices = jnp.zeros((1, 4, 5), jnp.int32)
    with pytest.raises(ArgumentError, match=r"^labels=None: PixelCNN with num_classes=3 needs a label"):
        MODEL.apply(variables, indices[..., None])
    with pytest.raises(ArgumentError, match=r"^labels: PixelCNN with num_classes=0 takes none"):
        pixelcnn_prior(NUM_CODES).init(jax.random.key(0), indices[..., None], LABEL)
    with pytest.raises(ArgumentError, match=r"^labels=None: PixelCNN with num_classes=3 needs a label"):
        MODEL.apply(variables, MODEL.network.blank_memory(1, 4, 5), None, method="begin_row")


def test_initialisation_is_xavier_uniform_over_the_full_kernel_with_normal_embeddings():
    model = pixelcnn_prior(512, num_classes=10, width=64, num_layers=1)
    tokens, labels = jnp.zeros((1, 1, 1, 1), jnp.int32), jnp.zeros(1, jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens, labels)["params"]
    layer = params["network"]["layer_0"]
    limits = {"vertical": (6 / (28 * 64 + 28 * 128)) ** 0.5, "horizontal": (6 / (4 * 192)) ** 0.5}
    for name, limit in limits.items():
        kernel = np.asarray(layer[name]["kernel"])
        # Over 30,000 draws the largest comes within 1 % of the limit and the deviation within 2 %.
        assert 0.99 * limit < np.abs(kernel).max() <= limit
        np.testing.assert_allclose(kernel.std(), limit / 3**0.5, rtol=0.02)
        assert np.all(layer[name]["bias"] == 0)
    np.testing.assert_allclose(params["embedding"]["embedding"].std(), 1.0, rtol=0.02)
    # 1,280 draws only: a standard error of 2 %.
    np.testing.assert_allclose(layer["class_embedding"]["embedding"].std(), 1.0, rtol=0.08)


def test_nats_are_those_of_the_softmax(variables, apply):
    indices = np.random.default_rng(3).integers(NUM_CODES, size=(3, 4, 5), dtype=np.int32)
    labels = jnp.array([0, 1, 2])
    exact = np.asarray(apply(variables, indices, labels), np.float64)
    log_p = exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    expected = -np.take_along_axis(log_p, indices[..., None], axis=-1)[..., 0]
    nats = jax.jit(MODEL.apply)(variables, indices[..., None], labels)
    assert nats.total.dtype == jnp.float32
    np.testing.assert_allclose(nats.total, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(nats.continuous, np.zeros((3, 4, 5)))
    np.testing.assert_allclose(nats.of_latents().total, expected.sum((1, 2)), rtol=1e-5)


def in_bfloat16(model):
    return model.clone(network=model.network.clone(compute_dtype="bfloat16"))


def test_in_bfloat16_parameters_logits_and_gradients_are_float32_and_nearly_the_same(variables):
    model = in_bfloat16(MODEL)
    indices = np.random.default_rng(0).integers(NUM_CODES, size=(8, 4, 5), dtype=np.int32)
    labels = jnp.arange(8) % 3

    def loss(model, variables):
        nats = model.apply(variables, indices[..., None], labels).of_latents()
        return nats.total.mean(), model.apply(variables, indices, labels, method=all_logits)

    differentiate = jax.jit(jax.value_and_grad(loss, 1, has_aux=True), static_argnums=0)
    (exact, exact_logits), exact_gradients = differentiate(MODEL, variables)
    (ours, logits), gradients = differentiate(model, variables)
    assert {leaf.dtype for leaf in jax.tree.leaves((ours, logits, gradients))} == {jnp.dtype("float32")}
    fresh = jax.eval_shape(model.init, jax.random.key(0), indices[..., None], labels)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    # Eleven convolutions and products one after the other each round to 2^-8, and as many again backward.
    np.testing.assert_allclose(logits, exact_logits, rtol=0.05, atol=0.05)
    np.testing.assert_allclose(ours, exact, rtol=0.01)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(exact_gradients), strict=True):
        assert np.linalg.norm(one - other) <= 0.1 * np.linalg.norm(other)


def test_in_bfloat16_all_convolutions_and_products_are(variables):
    def loss(variables):
        indices = jnp.zeros((2, 4, 5), jnp.int32)
        labels = jnp.zeros(2, jnp.int32)
        return in_bfloat16(MODEL).apply(variables, indices, labels, method=all_logits).sum()

    program = jax.jit(jax.value_and_grad(loss)).lower(variables).as_text()
    lines = [
        line for line in program.splitlines() if "stablehlo.convolution" in line or "stablehlo.dot_general" in line
    ]
    assert len(lines) == 3 * (3 * 4 + 2)  # forward, and for input and kernel, of three layers and the head
    # Sums over positions, of gradients of biases and embeddings, are float32.
    assert all(line.count("bf16") == 3 for line in lines)
    assert not [line for line in program.splitlines() if "stablehlo.reduce(" in line and "bf16" in line]
    assert not re.search(r"stablehlo.scatter.*bf16", program)


@pytest.mark.parametrize("model", [MODEL, in_bfloat16(MODEL)], ids=["float32", "bfloat16"])
def test_out_of_range_is_seen_in_every_dtype(variables, model):
    assert np.isnan(jax.jit(model.apply)(variables, jnp.full((1, 2, 2, 1), NUM_CODES), LABEL).total).any()
