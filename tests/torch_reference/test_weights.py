from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings, strategies as st

from hvq_jax.autoencoder import Autoencoder, ModelState, training_loss
from hvq_jax.errors import UserError
from hvq_jax.latents import hybrid_latent, latent_from_codes
from hvq_jax.losses import LossOptions, losses_per_image
from hvq_jax.networks.encoder_decoder import Decoder, Encoder
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.quantizers import CodebookOptions, LatentOptions
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.quantizers.bottleneck import QuantizerState
from hvq_jax.torch_reference.weights import (
    autoencoder_from_torch,
    autoencoder_to_torch,
    pixelcnn_from_torch,
    pixelcnn_to_torch,
)
from hvq_jax.training.learning_rates import Rates
from hvq_jax.training.state import adam, create_state, train_step

GOLDEN = Path(__file__).parents[1] / "golden"
AUTOENCODERS = ["vqvae_c1_28_d16_k32.npz", "vqvae_c3_32_d16_k32.npz"]
PIXELCNN = "pixelcnn_k32_d16_l4_7x7.npz"
LEARNING_RATE = 2e-4


def group(golden, name):
    return {key.removeprefix(name): golden[key] for key in golden if key.startswith(name)}


def state_dict_of(file):
    return group(np.load(GOLDEN / file), "param/")


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    for key, array in expected.items():
        assert actual[key].dtype == array.dtype, key
        assert actual[key].shape == array.shape, key
        assert np.asarray(actual[key]).tobytes() == np.asarray(array).tobytes(), key


# Round trips


@pytest.mark.parametrize("file", AUTOENCODERS)
def test_autoencoders_of_the_reference_survive_both_ways(file):
    state_dict = state_dict_of(file)
    variables = autoencoder_from_torch(state_dict)
    assert_same_bits(autoencoder_to_torch(variables, num_batches_tracked=200), state_dict)
    untold = autoencoder_to_torch(variables)["encoder.1.num_batches_tracked"]
    assert untold == 0
    assert untold.dtype == np.int64
    again = autoencoder_from_torch(autoencoder_to_torch(variables))
    assert_same_bits(flatten_dict(again), flatten_dict(variables))


def test_batch_counts_may_be_absent():
    state_dict = state_dict_of(AUTOENCODERS[0])
    without = {k: w for k, w in state_dict.items() if not k.endswith("num_batches_tracked")}
    assert_same_bits(
        flatten_dict(autoencoder_from_torch(without)),
        flatten_dict(autoencoder_from_torch(state_dict)),
    )


def test_pixelcnns_of_the_reference_survive_both_ways():
    state_dict = state_dict_of(PIXELCNN)
    variables = pixelcnn_from_torch(state_dict)
    assert_same_bits(pixelcnn_to_torch(variables), state_dict)
    again = pixelcnn_from_torch(pixelcnn_to_torch(variables))
    assert_same_bits(flatten_dict(again), flatten_dict(variables))


sizes = st.integers(1, 5)


@settings(max_examples=10, deadline=None)
@given(num_codes=sizes, half=sizes, num_classes=sizes, head=sizes, data=st.data())
def test_pixelcnns_of_any_size_survive_both_ways(num_codes, half, num_classes, head, data):
    num_layers, width = data.draw(st.integers(1, 12)), 2 * half
    shapes = {
        "embedding.weight": (num_codes, width),
        "output_conv.0.weight": (head, width, 1, 1),
        "output_conv.0.bias": (head,),
        "output_conv.2.weight": (num_codes, head, 1, 1),
        "output_conv.2.bias": (num_codes,),
    }
    for i in range(num_layers):
        rows = 4 if i == 0 else 2
        shapes |= {
            f"layers.{i}.class_cond_embedding.weight": (num_classes, 2 * width),
            f"layers.{i}.vert_stack.weight": (2 * width, width, rows, 2 * rows - 1),
            f"layers.{i}.vert_stack.bias": (2 * width,),
            f"layers.{i}.vert_to_horiz.weight": (2 * width, 2 * width, 1, 1),
            f"layers.{i}.vert_to_horiz.bias": (2 * width,),
            f"layers.{i}.horiz_stack.weight": (2 * width, width, 1, rows),
            f"layers.{i}.horiz_stack.bias": (2 * width,),
            f"layers.{i}.horiz_resid.weight": (width, width, 1, 1),
            f"layers.{i}.horiz_resid.bias": (width,),
        }
    # Any bits of finite numbers, -0 among them.
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    state_dict = {
        key: rng.integers(2**32, size=shape, dtype=np.uint32).view(np.float32) for key, shape in shapes.items()
    }
    state_dict = {key: np.where(np.isfinite(array), array, np.float32(-0.0)) for key, array in state_dict.items()}
    assert_same_bits(pixelcnn_to_torch(pixelcnn_from_torch(state_dict)), state_dict)


# What is not a model of the reference

READERS = [(autoencoder_from_torch, AUTOENCODERS[0]), (pixelcnn_from_torch, PIXELCNN)]
readers = pytest.mark.parametrize(("read", "file"), READERS, ids=["autoencoder", "pixelcnn"])


def assert_names(name, call):
    with pytest.raises(UserError) as error:
        call()
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@readers
def test_every_missing_key_is_named(read, file):
    state_dict = state_dict_of(file)
    for key in state_dict:
        if not key.endswith("num_batches_tracked"):
            rest = {name: array for name, array in state_dict.items() if name != key}
            assert_names(f"{key} is missing", lambda rest=rest: read(rest))


@readers
@pytest.mark.parametrize("key", ["encoder.9.weight", "encoder.0.num_batches_tracked", "layers.0.extra", "epoch"])
def test_an_unknown_key_is_named(read, file, key):
    state_dict = state_dict_of(file) | {key: np.zeros(3, np.float32)}
    assert_names(f"{key} is unknown", lambda: read(state_dict))


# The sizes of a model are read from the first two keys, not from the last.
SHAPED = {
    AUTOENCODERS[0]: ["encoder.0.weight", "codebook.embedding.weight", "decoder.6.weight"],
    PIXELCNN: ["embedding.weight", "output_conv.0.weight", "layers.3.horiz_resid.weight"],
}


@readers
def test_a_wrong_shape_is_named(read, file):
    state_dict, keys = state_dict_of(file), SHAPED[file]
    for key in keys:
        one_axis_more = state_dict | {key: state_dict[key][None]}
        assert_names(f"{key} has shape (1, ", lambda wrong=one_axis_more: read(wrong))
    one_entry_less = state_dict | {keys[-1]: state_dict[keys[-1]][1:]}
    assert_names(f"{keys[-1]} has shape", lambda: read(one_entry_less))


def with_last(array, value):
    changed = array.astype(np.result_type(array, np.asarray(value).dtype))
    changed[(-1,) * array.ndim] = value
    return changed


WRONG_VALUES = {
    "NaN": lambda array: with_last(array, np.float32(np.nan)),
    "infinite": lambda array: with_last(array, np.float32(-np.inf)),
    "infinite in 32 bits": lambda array: with_last(array, np.float64(1e39)),
    "complex": lambda array: array.astype(np.complex64),
    "integers": lambda array: array.astype(np.int32),
    "bools": lambda array: array > 0,
    "strings": lambda array: array.astype("U4"),
    "records": lambda array: np.zeros(array.shape, [("x", np.float32)]),
    "objects": lambda array: array.astype(object),
    "empty": lambda array: array[:0],
}


@readers
@given(data=st.data(), wrong=st.sampled_from(sorted(WRONG_VALUES)))
def test_wrong_values_are_named(read, file, data, wrong):
    state_dict = state_dict_of(file)
    key = data.draw(st.sampled_from([key for key in state_dict if not key.endswith("num_batches_tracked")]))
    assert_names(f"{key} ", lambda: read(state_dict | {key: WRONG_VALUES[wrong](state_dict[key])}))


def test_a_negative_variance_is_named():
    state_dict = state_dict_of(AUTOENCODERS[0])
    for key in [key for key in state_dict if key.endswith("running_var")]:
        damaged = state_dict | {key: with_last(state_dict[key], np.float32(-1))}
        assert_names(f"{key} must be at least 0.0", lambda damaged=damaged: autoencoder_from_torch(damaged))


def test_other_precisions_are_read():
    state_dict = state_dict_of(AUTOENCODERS[0])
    read = autoencoder_from_torch({key: array.astype(np.float64) for key, array in state_dict.items()})
    assert_same_bits(autoencoder_to_torch(read), autoencoder_to_torch(autoencoder_from_torch(state_dict)))


@pytest.mark.parametrize("index", ["4", "999999999", "9" * 5000])
def test_no_index_of_a_layer_takes_memory(index):
    state_dict = state_dict_of(PIXELCNN) | {f"layers.{index}.vert_stack.bias": np.zeros(32, np.float32)}
    with pytest.raises(UserError, match=r"layers\.4\..* is missing|layers\.9* ?.*is unknown"):
        pixelcnn_from_torch(state_dict)


@pytest.mark.parametrize(
    ("write", "read", "file", "path"),
    [
        (autoencoder_to_torch, *READERS[0], ("params", "quantizer", "codes")),
        (autoencoder_to_torch, *READERS[0], ("batch_stats", "decoder", "norm_up", "var")),
        (pixelcnn_to_torch, *READERS[1], ("params", "network", "layer_0", "class_embedding", "embedding")),
        (pixelcnn_to_torch, *READERS[1], ("params", "code_head", "logits", "kernel")),
    ],
)
def test_variables_the_reference_has_no_place_for_are_named(write, read, file, path):
    name = "/".join(path)
    variables = read(state_dict_of(file))
    parent = variables
    for part in path[:-1]:
        parent = parent[part]
    array = parent.pop(path[-1])
    assert_names(f"{name} is missing", lambda: write(variables))
    parent[path[-1]] = array[None]
    assert_names(f"{name} has shape (1, ", lambda: write(variables))
    parent[path[-1]], parent["extra"] = array, array
    assert_names("extra is unknown", lambda: write(variables))


# Golden numbers of the autoencoder


def nchw(images):
    return np.asarray(images).transpose(0, 3, 1, 2)


def one_training_step(params, batch_stats, x):
    """Return the state after the step that `train.py` takes."""
    model = Autoencoder(
        image_shape=x.shape[1:],
        network=NetworkOptions(skip="rectified"),
        latent_options=LatentOptions(mode="vq", num_codes=32, dim=16),
        codebook_options=CodebookOptions(learning="gradient", init="uniform"),
        loss=LossOptions(commitment_weight=1.0),
    )

    def loss_function(params, state, images, key, axis_name):
        return training_loss(model, params, state, images, key, axis_name=axis_name)

    optimizer = adam(Rates(LEARNING_RATE, 1).by_step())
    state = create_state(params, ModelState(batch_stats, QuantizerState(jnp.zeros(32))), optimizer, average_decay=0.0)
    return jax.jit(partial(train_step, loss_function=loss_function, optimizer=optimizer, seed=0))(state, x)[0]


@pytest.fixture(scope="module", params=AUTOENCODERS)
def run(request):
    """Ours and the golden numbers: evaluation, and one training step with Adam."""
    golden = dict(np.load(GOLDEN / request.param))
    before = group(golden, "param/")
    variables = autoencoder_from_torch(before)
    x = golden["x"].transpose(0, 2, 3, 1)
    options = NetworkOptions(skip="rectified")
    encoder, decoder = Encoder(16, options), Decoder(16, x.shape[-1], options)

    def apply(network, name, params, inputs, train):
        collections = {"params": params[name], "batch_stats": variables["batch_stats"][name]}
        outputs, updates = network.apply(collections, inputs, train=train, mutable=["batch_stats"])
        return outputs, updates["batch_stats"]

    def forward(params, train):
        z_e, encoder_stats = apply(encoder, "encoder", params, x, train)
        codes = params["quantizer"]["codes"]
        indices = nearest_codes(z_e, codes)
        latent = hybrid_latent(z_e, codes, indices, frequent=jnp.ones(32, bool), mode="vq")
        x_tilde, decoder_stats = apply(decoder, "decoder", params, latent.z_bar, train)
        losses = losses_per_image(x, x_tilde, z_e, latent)
        return SimpleNamespace(
            z_e=z_e,
            z_q=latent.z_q,
            indices=indices,
            x_tilde=x_tilde,
            losses=losses,
            batch_stats={"encoder": encoder_stats, "decoder": decoder_stats},
        )

    @jax.jit
    def evaluate(params):
        z_bar = latent_from_codes(golden["eval/indices"], params["quantizer"]["codes"])
        decoded, _ = apply(decoder, "decoder", params, z_bar, train=False)
        return vars(forward(params, train=False)), decoded

    params = variables["params"]
    evaluation, decoded = evaluate(params)
    train = jax.jit(lambda params: vars(forward(params, train=True)))(params)
    state = one_training_step(params, variables["batch_stats"], x)
    stats = state.model_state.batch_stats
    # After one step Adam's first moment is (1 - 0.9) times the gradient.
    gradients = jax.tree.map(lambda moment: 10 * moment, state.opt_state[0][0].mu)
    return SimpleNamespace(
        golden=golden,
        before=before,
        evaluation=SimpleNamespace(**evaluation),
        decoded=decoded,
        train=SimpleNamespace(**train),
        gradients=autoencoder_to_torch({"params": gradients, "batch_stats": stats}),
        after=autoencoder_to_torch({"params": state.params, "batch_stats": stats}),
    )


def feeds_a_batch_norm(key):
    """Return whether the true gradient of this bias is zero, since the batch norm removes its mean."""
    biases = ("encoder.0.bias", "decoder.3.bias", "block.1.bias", "block.4.bias")
    return key.endswith(biases)


def test_evaluation_agrees_with_the_reference(run):
    np.testing.assert_allclose(nchw(run.evaluation.z_e), run.golden["eval/z_e"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(run.evaluation.indices, run.golden["eval/indices"])
    np.testing.assert_array_equal(nchw(run.evaluation.z_q), run.golden["eval/z_q"])


def test_evaluated_images_agree_with_the_reference(run):
    # With these stored statistics tanh sees values up to 380, where neighbouring float32 numbers
    # are 3e-5 apart: single pixels of the golden images are themselves 2e-5 and 6e-5 away from a
    # float64 evaluation. So 1e-5 is asked of the whole, relative to its norm.
    for images, name in [
        (run.evaluation.x_tilde, "eval/x_tilde"),
        (run.decoded, "eval/decode_of_indices"),
    ]:
        distance = np.linalg.norm(nchw(images) - run.golden[name])
        assert distance <= 1e-5 * np.linalg.norm(run.golden[name])


def test_training_mode_agrees_with_the_reference(run):
    for name in ("z_e", "z_q", "x_tilde"):
        actual, expected = nchw(getattr(run.train, name)), run.golden[f"train/{name}"]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5, err_msg=name)


def test_losses_agree_with_the_reference(run):
    losses, golden = run.train.losses, run.golden
    # Means of thousands of float32 terms.
    np.testing.assert_allclose(losses.reconstruction.mean(), golden["train/loss_recons"], rtol=1e-6)
    np.testing.assert_allclose(losses.codebook.mean(), golden["train/loss_vq"], rtol=1e-6)
    np.testing.assert_allclose(losses.commitment.mean(), golden["train/loss_commit"], rtol=1e-6)


def test_running_statistics_agree_with_the_reference(run):
    statistics = [key for key in run.after if key.endswith(("running_mean", "running_var"))]
    assert len(statistics) == 20
    for key in statistics:
        expected = run.golden[f"after_adam/{key}"]
        np.testing.assert_allclose(run.after[key], expected, rtol=0, atol=1e-6, err_msg=key)


def test_gradients_agree_with_the_reference(run):
    expected = group(run.golden, "grad/")
    assert len(expected) == 45  # 22 in each network, and the codes
    for key, gradient in expected.items():
        if feeds_a_batch_norm(key):
            assert np.abs(run.gradients[key]).max() < 1e-6, key
        else:
            distance = np.linalg.norm(run.gradients[key] - gradient)
            assert distance <= 1e-4 * np.linalg.norm(gradient), key


def test_parameters_after_one_step_of_adam_agree_with_the_reference(run):
    for key in group(run.golden, "grad/"):
        if feeds_a_batch_norm(key):
            # Noise divided by its own size: a move of at most the learning rate, to rounding.
            move = np.abs(run.after[key] - run.before[key]).max()
            assert move <= 1.001 * LEARNING_RATE, key
        else:
            # Half a percent of the move; the smallest gradients are rounding to that extent.
            expected = run.golden[f"after_adam/{key}"]
            np.testing.assert_allclose(run.after[key], expected, rtol=0, atol=1e-6, err_msg=key)
