"""An extension of the project takes one row, one class or one import path, and works in both stages."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sample
import train
from hvq_jax import autoencoder, latents
from hvq_jax.autoencoder import Autoencoder, LatentOptions, NetworkOptions
from hvq_jax.data.datasets import load_dataset
from hvq_jax.latents import CODE, PROJECTION, Z_E, Latent
from hvq_jax.priors.tokens import from_tokens
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.runs.trained import TrainedRun
from tests.workdirs import error_of

pytestmark = pytest.mark.usefixtures("without_plots")

K, D = 6, 4

SWAPPED = Latent(frequent=PROJECTION, rare=CODE)  # M P + (1 - M) e
BOTH = Latent(frequent=PROJECTION, rare=Z_E)  # M P + (1 - M) z_e


def hybrid(mode, num_frequent, key=0):
    z_key, code_key = jax.random.split(jax.random.key(key))
    z_e, codes = jax.random.normal(z_key, (3, 5, D)), jax.random.normal(code_key, (K, D))
    frequent = latents.frequent_codes(jnp.arange(1.0, K + 1), num_frequent=num_frequent)
    return latents.hybrid_latent(z_e, codes, nearest_codes(z_e, codes), frequent, mode=mode)


@pytest.mark.parametrize(("num_frequent", "same"), [(K, "projected"), (0, "vq")])
def test_a_row_of_ones_own_has_the_identities_of_the_table(monkeypatch, num_frequent, same):
    monkeypatch.setitem(latents.LATENTS, "swapped", SWAPPED)
    ours, theirs = hybrid("swapped", num_frequent), hybrid(same, num_frequent)
    for name in ("z_bar", "discrete", "projected"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def trained(tiny_arguments, workdir, *options):
    briefly = ["--config.autoencoder.num_steps=2", "--config.prior.num_steps=2"]
    assert train.main([*tiny_arguments, *briefly, f"--workdir={workdir}", *options]) == 0
    return TrainedRun.load(workdir)


def codes_of(run):
    return autoencoder.codes(run.model, run.variables)


PRIOR_FROM_OUTSIDE = ("--config.prior.name=tests.plugins.gru:GRU", "--config.parallel=jit")
# On four devices: what an encoder and a decoder of one's own reduce over devices is their own.
NETWORKS_FROM_OUTSIDE = (
    "--config.network.encoder=tests.plugins.patches:Encoder",
    "--config.network.decoder=tests.plugins.patches:Decoder",
    "--config.network.width=24",
    "--config.latent.dim=4",
    "--config.data.image_size=(24,32)",
)


# One of them with a prior network from outside, which has to draw codes and lengths; the other with an encoder and a
# decoder from outside, for images of two sides.
@pytest.mark.parametrize(
    ("name", "row", "num_heads", "network", "options"),
    [("swapped", SWAPPED, 1, "gru", PRIOR_FROM_OUTSIDE), ("both", BOTH, 2, "pixelcnn", NETWORKS_FROM_OUTSIDE)],
)
def test_a_latent_of_one_row_and_networks_train_transmit_and_sample(
    monkeypatch, tiny_arguments, data_dir, tmp_path, name, row, num_heads, network, options
):
    monkeypatch.setitem(latents.LATENTS, name, row)
    step = 0.25
    of_latent = ("latent.num_frequent=2", f"latent.mode={name}", f"prior.residual_step={step}")
    run = trained(tiny_arguments, tmp_path, *(f"--config.{option}" for option in of_latent), *options)
    test = json.loads((tmp_path / "summary.json").read_text())["prior"]["test"]
    assert (tmp_path / "samples.png").exists()
    assert test["nats_of_continuous"] > 0
    # Bits per pixel are of the images' pixels, whatever the factor.
    assert test["bits_per_pixel"] == pytest.approx(test["bits_per_image"] / np.prod(run.image_shape))
    assert len(run.prior.heads) == num_heads
    assert type(run.prior.network).__name__.lower() == network
    if options == NETWORKS_FROM_OUTSIDE:
        assert run.image_shape == (24, 32, 1)
        assert run.latent_shape == (3, 4)
        assert run.variables.state.batch_stats == {"encoder": {}, "decoder": {}}

    images, _ = load_dataset("fashion_mnist_mini", data_dir=data_dir).test.read(np.arange(5))
    images = np.pad(images, [(0, 0), (0, 0), (2, 2), (0, 0)])[:, : run.image_shape[0], : run.image_shape[1]]
    (exact,), ((tokens, received),) = run.reconstruct(images), run.transmit(images)
    np.testing.assert_array_equal(exact.indices, received.indices)
    difference = exact.latents - received.latents
    frequent, codes = np.load(tmp_path / "latents.npz")["frequent"], exact.indices
    np.testing.assert_array_equal(run.tables.has_length, frequent)
    np.testing.assert_array_equal(run.tables.has_residual, ~frequent & (row.rare == Z_E))
    rare = ~frequent[codes]
    assert 0 < rare.mean() < 1
    if row.rare == CODE:
        np.testing.assert_array_equal(difference[rare], 0.0)
    else:
        assert 0 < np.abs(difference[rare]).max() <= step / 2 + 1e-6
    # Where the code is frequent the length alone is rounded, to the nearest of its code's centroids.
    directions = latents.unit(codes_of(run))[codes[~rare]]
    lengths = np.sum(exact.latents[~rare] * directions, -1, keepdims=True)
    off = np.abs(np.asarray(run.tables.centroids)[codes[~rare]] - lengths).min(-1)
    np.testing.assert_allclose(np.linalg.norm(difference[~rare], axis=-1), off, atol=1e-5)

    again, _ = from_tokens(jnp.asarray(tokens), run.tables, jnp.asarray(codes_of(run)).__getitem__)
    np.testing.assert_allclose(again, received.latents, atol=1e-6)
    out = tmp_path / "drawn.npz"
    assert sample.main([f"--workdir={tmp_path}", "--num_samples=3", f"--out={out}"]) == 0
    drawn = np.load(out)
    assert drawn["images"].shape == (3, *run.image_shape)
    assert drawn["indices"].shape == (3, *run.latent_shape)


def test_a_name_that_is_no_row_is_an_error_in_the_library_too():
    with pytest.raises(ValueError, match=r"mode=hybrid: choose one of vq, projected, frequency, combined"):
        hybrid("hybrid", 3)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            "network.encoder=tests.plugins.patches:Encoder",
            "--config.network.decoder=reference: enlarges latents 4 times",
        ),
        ("network.encoder=tests.plugins.nothing:Encoder", "cannot be imported"),
        ("prior.name=tests.plugins.gru:LSTM", "cannot be imported"),
        (
            "codebook.family=collections:OrderedDict",
            "is not like Quantizer in hvq_jax.quantizers.bottleneck: no codes, ",
        ),
        ("codebook.learning=builtins:int", "is not like LearningRule in hvq_jax.quantizers.learning: no codes, "),
        (
            "network.encoder=flax.linen:Dense",
            "is not like EncoderNetwork in hvq_jax.networks: no axis_name, dim, factor",
        ),
        ("network.decoder=hvq_jax.networks:Encoder", "is not like DecoderNetwork in hvq_jax.networks: no channels"),
        ("network.encoder=hvq_jax.networks:Decoder", "cannot be constructed"),
        ("prior.name=hvq_jax.quantizers:ScalarQuantizer", "is not like PriorNetwork in hvq_jax.priors.network: no "),
        ("prior.name=gru", "choose one of pixelcnn, transformer, or package.module:Class"),
        ("network.factor=8", "images are 28×28, and both sides must be multiples of 8"),
        ("network.factor=3", "choose one of 2, 4, 8, 16"),
        ("data.image_size=(30,30,3)", "must be a side, or (height, width)"),
    ],
)
def test_what_does_not_fit_is_one_line(tiny_arguments, tmp_path, capsys, option, said):
    assert said in error_of([*tiny_arguments, f"--workdir={tmp_path}", f"--config.{option}"], capsys)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("factor", "sides"), [(2, (6, 10)), (8, (16, 24)), (16, (32, 16))])
def test_built_in_networks_have_any_factor_and_width(factor, sides):
    network = NetworkOptions(factor=factor, width=6, num_blocks=1)
    model = Autoencoder((*sides, 3), network=network, latent_options=LatentOptions(dim=4, num_codes=8))
    images = np.random.default_rng(0).uniform(-1, 1, (2, *sides, 3)).astype(np.float32)

    @jax.jit
    def encoded_and_decoded(images):
        variables = autoencoder.init(model, jax.random.key(0))
        z_bar = autoencoder.encode_to_latent(model, variables, images).z_bar
        return z_bar, autoencoder.decode(model, variables, z_bar)

    z_bar, decoded = encoded_and_decoded(images)
    assert z_bar.shape == (2, sides[0] // factor, sides[1] // factor, 4)
    assert decoded.shape == images.shape
    assert np.isfinite(z_bar).all()
    assert np.isfinite(decoded).all()
