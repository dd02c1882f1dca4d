"""The whole model on tiny images: identities through the networks, order of the step, devices."""

import dataclasses
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.devices.parallel import Parallel
from hvq_jax.latents import latent_from_codes
from hvq_jax.losses import LossOptions
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.quantizers import CodebookOptions, LatentOptions
from tests.methods import METHODS

K, D, BATCH = 16, 4, 8
IMAGES = np.random.default_rng(0).uniform(-1, 1, (BATCH, 8, 12, 1)).astype(np.float32)


def model_of(mode, num_frequent=6, learning="ema", num_blocks=0, **latent):
    return Autoencoder(
        image_shape=(8, 12, 1),
        network=NetworkOptions(num_blocks=num_blocks),
        latent_options=LatentOptions(mode=mode, num_codes=K, dim=D, num_frequent=num_frequent, **latent),
        codebook_options=CodebookOptions(learning=learning, init="uniform" if learning == "gradient" else "data"),
        loss=LossOptions(commitment_weight=1.0, projection_weight=1.0),
    )


# For inputs of tests, which any program may compute: under `-m optimised` too, it is compiled in a third of the time.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def variables_of(num_blocks):
    """Return variables whose codes come from the data and whose frequency table distinguishes codes."""
    model = model_of("vq", num_blocks=num_blocks)

    @partial(jax.jit, compiler_options=QUICKLY)
    def first_step(key, data_key):
        fresh = autoencoder.init(model, key)
        _, (state, _) = autoencoder.training_loss(model, fresh.params, fresh.state, IMAGES, data_key)
        return fresh, state

    fresh, state = first_step(jax.random.key(0), jax.random.key(1))
    return Variables(fresh.params, state.replace(quantizer=state.quantizer.replace(frequency=jnp.arange(1.0, K + 1))))


@pytest.fixture(scope="module")
def variables():
    return variables_of(num_blocks=0)


@pytest.fixture(scope="module")
def variables_of_a_block():
    return variables_of(num_blocks=1)


@partial(jax.jit, static_argnums=0)
def step(model, variables, images, key):
    differentiate = jax.value_and_grad(partial(autoencoder.training_loss, model), has_aux=True)
    (loss, (state, metrics)), gradients = differentiate(variables.params, variables.state, images, key)
    return loss, state, metrics, gradients


def forward(model, variables, images):
    latent = autoencoder.encode_to_latent(model, variables, images)
    sums = autoencoder.evaluation_sums(model, variables, images, jnp.ones(len(images), bool))
    return latent.z_bar, autoencoder.decode(model, variables, latent.z_bar), sums.loss.total


LIMITS = [("frequency", K, "vq"), ("combined", K, "vq"), ("combined", 0, "projected")]


def transformed(transform, model):
    """`forward` of `model` under jit, or over four devices by pmap."""
    function = partial(forward, model)
    if transform == "pmap":
        shards = IMAGES.reshape(4, 2, *IMAGES.shape[1:])
        return lambda variables: jax.pmap(function, in_axes=(None, 0))(variables, shards)
    return lambda variables: jax.jit(function)(variables, IMAGES)


@pytest.mark.optimised
@pytest.mark.parametrize("transform", ["jit", "pmap"])  # uncompiled, only latents can differ: test_latents.py
def test_limits_hold_bit_for_bit_through_the_decoder_and_the_loss(variables_of_a_block, transform):
    def results(mode, num_frequent=6):
        return transformed(transform, model_of(mode, num_frequent, num_blocks=1))(variables_of_a_block)

    by_mode = {mode: results(mode) for mode in ("vq", "projected")}
    for mode, num_frequent, same_as in LIMITS:
        limit = results(mode, num_frequent)
        chex.assert_trees_all_equal(limit, by_mode[same_as])


@pytest.mark.optimised
@pytest.mark.parametrize("mode", ["vq", "projected"])  # compiling takes seconds per latent: one test for each worker
def test_limits_hold_bit_for_bit_in_a_training_step(variables, mode):
    key = jax.random.key(2)

    def loss_and_state(model):
        loss, state, metrics, _ = step(model, variables, IMAGES, key)
        return loss, metrics.losses, state

    expected = loss_and_state(model_of(mode))
    for other, num_frequent, same_as in LIMITS:
        if same_as == mode:
            chex.assert_trees_all_equal(loss_and_state(model_of(other, num_frequent)), expected)


def test_frequency_without_frequent_codes_is_a_plain_autoencoder(variables):
    model = model_of("frequency", 0)
    z_e = jax.jit(partial(autoencoder.encode, model))(variables, IMAGES)
    z_bar, images, _ = jax.jit(partial(forward, model))(variables, IMAGES)
    np.testing.assert_array_equal(z_bar, z_e)
    np.testing.assert_array_equal(images, jax.jit(partial(autoencoder.decode, model))(variables, z_e))


def test_decoding_indices_is_the_forward_pass_of_vq(variables):
    model = model_of("vq")
    latent = jax.jit(partial(autoencoder.encode_to_latent, model))(variables, IMAGES)
    codes = autoencoder.codes(model, variables)
    decoded = jax.jit(partial(autoencoder.decode, model))(variables, latent_from_codes(latent.indices, codes))
    np.testing.assert_array_equal(decoded, jax.jit(partial(autoencoder.reconstruct, model))(variables, IMAGES))


def test_the_frequency_table_is_updated_before_the_mask(variables):
    """With decay 0 and S = 1 only the code that is most frequent in this very batch is kept plain."""
    model = model_of("frequency", 1, frequency_decay=0.0)
    _, state, metrics, _ = step(model, variables, IMAGES, jax.random.key(3))
    counts = np.asarray(metrics.counts)
    assert counts.sum() == BATCH * 2 * 3
    np.testing.assert_array_equal(state.quantizer.frequency, counts)
    np.testing.assert_allclose(metrics.share_outside, 1 - counts.max() / counts.sum(), rtol=1e-6)


def test_evaluation_changes_nothing_and_ignores_padding(variables):
    model = model_of("combined")
    evaluate = jax.jit(partial(autoencoder.evaluation_sums, model))
    whole = evaluate(variables, IMAGES, jnp.ones(BATCH, bool))
    garbage = np.concatenate([IMAGES[:5], -IMAGES[:3]])
    first = evaluate(variables, garbage, jnp.arange(BATCH) < 5)
    rest = evaluate(variables, np.roll(IMAGES, -5, axis=0), jnp.arange(BATCH) < 3)
    summed = jax.tree.map(lambda a, b: a + b, first, rest)
    np.testing.assert_array_equal(summed.counts, whole.counts)
    chex.assert_trees_all_close(summed, whole, rtol=1e-5)  # another order of addition
    assert int(whole.counts.sum()) == BATCH * 2 * 3


def test_with_averaged_codes_plain_differentiation_of_the_projection_is_the_encoders(variables):
    gradients = [
        step(model_of("projected", projection_gradient=name), variables, IMAGES, jax.random.key(2))[3]
        for name in ("both", "encoder")
    ]
    chex.assert_trees_all_close(*gradients, rtol=1e-5, atol=1e-7)


def test_where_the_codes_are_learned():
    for learning in ("ema", "gradient"):
        model = model_of("vq", learning=learning)
        fresh = jax.jit(partial(autoencoder.init, model))(jax.random.key(0))
        _, state, metrics, gradients = step(model, fresh, IMAGES, jax.random.key(1))
        assert set(fresh.params) == {"encoder", "decoder", "quantizer"}
        if learning == "gradient":
            assert state.quantizer.learned is None
            assert np.abs(gradients["quantizer"]["codes"]).max() > 0
            assert int(metrics.revived) == 0
        else:
            assert not fresh.params["quantizer"]
            assert int(metrics.revived) == K  # all drawn from the first batch
            before, after = (autoencoder.codes(model, Variables(fresh.params, each)) for each in (fresh.state, state))
            assert np.abs(after - before).max() > 0


# Moving averages: tests/devices/test_two_processes.py.
def test_four_devices_take_the_step_of_one_with_the_whole_batch():
    """To the rounding of another order of addition; every replica bit-identical to the next."""
    model = model_of("projected", learning="gradient")
    fresh = jax.jit(partial(autoencoder.init, model))(jax.random.key(0))
    key = jax.random.key(1)
    loss, state, metrics, gradients = step(model, fresh, IMAGES, key)

    def on_device(variables, images):
        loss_function = partial(autoencoder.training_loss, model, axis_name="devices")
        differentiate = jax.value_and_grad(loss_function, has_aux=True)
        (loss, (state, metrics)), gradients = differentiate(variables.params, variables.state, images, key)
        loss, metrics, gradients = jax.lax.pmean((loss, metrics, gradients), "devices")
        return loss, state, metrics, gradients

    shards = IMAGES.reshape(4, 2, *IMAGES.shape[1:])
    many = jax.pmap(on_device, "devices", in_axes=(None, 0))(fresh, shards)
    for leaf in jax.tree.leaves(many):
        replicas = np.asarray(leaf)
        np.testing.assert_array_equal(replicas, np.broadcast_to(replicas[:1], replicas.shape))
    first = jax.tree.map(lambda x: x[0], many)
    np.testing.assert_array_equal(first[2].counts, metrics.counts)
    np.testing.assert_array_equal(first[1].quantizer.frequency, state.quantizer.frequency)
    chex.assert_trees_all_close(first[:2], (loss, state), rtol=1e-4, atol=1e-5)
    # BatchNorm makes some gradients differences of large sums: compared against the size of each array.
    for ours, whole in zip(jax.tree.leaves(first[3]), jax.tree.leaves(gradients), strict=True):
        assert np.linalg.norm(ours - whole) <= 1e-3 * np.linalg.norm(whole) + 1e-5


def test_the_model_is_a_description_that_can_be_compared_and_hashed():
    assert model_of("vq") == model_of("vq")
    assert hash(model_of("vq")) != hash(model_of("projected"))
    assert dataclasses.replace(model_of("vq"), image_shape=(32, 16, 3)).latent_shape == (8, 4)


@pytest.mark.parametrize(
    ("options", "codebook_weight", "commitment_weight"),
    [
        ({"learning": "ema"}, 0.0, 0.5),
        ({"learning": "gradient"}, 2.0, 0.5),
        ({"learning": "simvq"}, 2.0, 0.5),
        ({"family": "residual", "depth": 2}, 0.0, 0.5),
        ({"family": "fsq"}, 0.0, 0.0),
    ],
)
def test_a_weight_counts_only_where_the_quantizer_trains_by_its_term(options, codebook_weight, commitment_weight):
    weights = LossOptions(codebook_weight=2.0, commitment_weight=0.5, projection_weight=3.0)
    quantizer = {"latent_options": LatentOptions(mode="vq"), "codebook_options": CodebookOptions(**options)}
    model = Autoencoder((8, 8, 1), **quantizer, loss=weights)
    expected = dataclasses.replace(weights, codebook_weight=codebook_weight, commitment_weight=commitment_weight)
    assert model.training_loss_options == expected
    assert model.loss == weights


def test_parallel_refuses_batches_that_devices_cannot_share():
    from hvq_jax.errors import UserError

    parallel = Parallel("pmap")
    assert parallel.num_devices == 4
    parallel.check_batch_size("key", 8)
    for size in (2, 6):
        with pytest.raises(UserError, match=f"key={size}: must be a multiple of 4, the number of devices"):
            parallel.check_batch_size("key", size)
    Parallel("jit").check_batch_size("key", 2)


def in_bfloat16(model):
    return dataclasses.replace(model, network=dataclasses.replace(model.network, compute_dtype="bfloat16"))


def dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


def test_bfloat16_stays_inside_the_networks(variables):
    model = in_bfloat16(model_of("combined"))
    key = jax.random.key(0)
    fresh = jax.jit(partial(autoencoder.init, model))(key)
    chex.assert_trees_all_equal(fresh, jax.jit(partial(autoencoder.init, model_of("combined")))(key))
    assert dtypes(fresh) == {"float32"}
    z_e = jax.eval_shape(partial(autoencoder.encode, model), variables, IMAGES)
    latent = jax.eval_shape(partial(autoencoder.quantize, model), variables, z_e)
    images = jax.eval_shape(partial(autoencoder.decode, model), variables, latent.z_bar)
    assert dtypes([z_e, latent.z_bar, latent.gain, images]) == {"float32"}
    assert latent.indices.dtype == jnp.int32
    loss, state, metrics, gradients = jax.eval_shape(partial(step, model), variables, IMAGES, key)
    assert dtypes([loss, state, gradients, metrics.replace(counts=loss, revived=loss)]) == {"float32"}


def operands(program, operation):
    """Return the element types of all operands of an operation in a lowered program."""
    lines = [line for line in program.splitlines() if f"stablehlo.{operation}" in line]
    types = [re.findall(r"tensor<[^>]*?(f32|bf16)>", re.search(r": \((.*)\) ->", line)[1]) for line in lines]
    return {kind for pair in types for kind in pair}


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_all_convolutions_are_bfloat16_and_the_codebook_search_is_not(variables, platform):
    traced = step.trace(in_bfloat16(model_of("vq")), variables, IMAGES, jax.random.key(0))
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert operands(program, "convolution") == {"bf16"}
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    searches = [line for line in products if f"-> tensor<{BATCH}x2x3x{K}x" in line]
    assert len(searches) == 1
    assert "bf16" not in searches[0]


# A product of rounded factors is wrong by 2^-7 at the most. Through 12 layers of 4 channels that does not average out,
# and batch norm's gradients are differences of larger numbers.
def test_loss_and_gradients_in_bfloat16_are_those_of_float32_to_its_rounding(variables):
    model = model_of("combined")
    results = [step(each, variables, IMAGES, jax.random.key(2)) for each in (model, in_bfloat16(model))]
    (exact, _, _, exact_gradients), (loss, _, _, gradients) = results
    np.testing.assert_allclose(loss, exact, rtol=0.02)
    whole, ours = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (exact_gradients, gradients))
    assert np.linalg.norm(ours - whole) <= 0.25 * np.linalg.norm(whole)
    assert np.vdot(ours, whole) >= 0.97 * np.linalg.norm(ours) * np.linalg.norm(whole)


def test_evaluation_in_bfloat16_sees_the_stored_statistics(variables):
    exact, rounded = (
        jax.jit(partial(autoencoder.evaluation_sums, model))(variables, IMAGES, jnp.ones(BATCH, bool))
        for model in (model_of("frequency", 0), in_bfloat16(model_of("frequency", 0)))
    )
    np.testing.assert_allclose(rounded.mse.value, exact.mse.value, rtol=0.02)
    assert dtypes(rounded.replace(counts=exact.loss)) == {"float32"}


def test_frozen_parts_work_as_in_evaluation_and_stay(variables):
    """Codes, masks and statistics are the stored ones, and the loss is that of an evaluation of the same images."""
    model, parts = model_of("combined"), ("encoder", "decoder", "quantizer")
    loss, (state, metrics) = jax.jit(partial(autoencoder.training_loss, model, frozen=parts))(
        variables.params, variables.state, IMAGES, jax.random.key(1)
    )
    sums = jax.jit(partial(autoencoder.evaluation_sums, model))(variables, IMAGES, np.ones(BATCH, bool))
    np.testing.assert_allclose(loss, sums.loss.value, rtol=1e-5)
    np.testing.assert_array_equal(metrics.counts, sums.counts)
    assert metrics.revived == 0
    chex.assert_trees_all_equal(state, variables.state)


def test_a_frozen_part_passes_gradients_on(variables):
    model, codes = model_of("projected"), ("decoder", "quantizer")
    gradients = jax.jit(jax.grad(partial(autoencoder.training_loss, model, frozen=codes), has_aux=True))(
        variables.params, variables.state, IMAGES, jax.random.key(1)
    )[0]
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradients["encoder"]["conv_down"]))


@pytest.mark.parametrize("name", METHODS)
def test_every_quantizer_can_be_frozen(name):
    model = METHODS[name]
    if model.quantizer.has_entropy_loss:
        model = dataclasses.replace(model, loss=dataclasses.replace(model.loss, entropy_weight=0.1))
    variables = jax.eval_shape(partial(autoencoder.init, model), jax.random.key(0))
    images = jax.ShapeDtypeStruct((BATCH, *model.image_shape), jnp.float32)
    loss, (state, metrics) = jax.eval_shape(
        partial(autoencoder.training_loss, model, frozen=("quantizer",)),
        *(variables.params, variables.state, images, jax.random.key(1)),
    )
    assert loss.shape == ()
    assert metrics.counts.shape[-1] == model.num_codes
    assert jax.tree.structure(state) == jax.tree.structure(variables.state)
