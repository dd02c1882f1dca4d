"""FLOP of the networks, compared with those that XLA counts."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from benchmarks.measuring.flop import autoencoder_flop, prior_flop
from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, LatentOptions
from hvq_jax.errors import ArgumentError
from hvq_jax.networks import winograd
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.transformer import Transformer

# XLA counts normalisation and activations too: 1 to 7 % here, where a weight meets few channels.
EXTRA = 1.08


@pytest.mark.parametrize(
    "network",
    [
        NetworkOptions(),
        NetworkOptions(factor=2),
        NetworkOptions(factor=8),
        NetworkOptions(factor=16, num_blocks=0),
        NetworkOptions(factor=8, num_blocks=3, width=64),
        NetworkOptions(factor=2, num_blocks=0, width=16),
    ],
    ids=lambda network: f"factor {network.factor}, {network.num_blocks} blocks, width {network.width}",
)
def test_flop_of_the_autoencoder_are_xlas(network, xla_counts, monkeypatch):
    monkeypatch.setattr(winograd, "is_worthwhile", lambda *arguments: False)  # the FLOP of plain convolutions
    model = Autoencoder((32, 48, 3), network, LatentOptions("vq", num_codes=64, dim=48))
    networks, search = autoencoder_flop(model)
    variables = jax.eval_shape(partial(autoencoder.init, model), jax.random.key(0))
    images = np.zeros((2, *model.image_shape), np.float32)
    counted = xla_counts(partial(autoencoder.reconstruct, model), variables, images)
    assert 2 * (networks + search) < counted < EXTRA * 2 * (networks + search)


def test_networks_with_unknown_layers_are_not_counted():
    network = NetworkOptions(encoder="tests.plugins.patches:Encoder", decoder="tests.plugins.patches:Decoder")
    with pytest.raises(ArgumentError, match=r"^model: its encoder and decoder must be"):
        autoencoder_flop(Autoencoder((16, 16, 1), network))


def test_flop_of_the_pixelcnn_are_xlas(xla_counts):
    model = Prior(32, PixelCNN(num_classes=3, width=24, num_layers=3), head_width=48)
    arguments = np.zeros((2, 5, 4, 1), np.int32), np.zeros(2, np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), *arguments)
    counted = xla_counts(model.apply, params, *arguments)
    flop = 2 * prior_flop(model, 5, 4)
    assert flop < counted < EXTRA * flop


def test_flop_of_the_transformer_are_xlas_without_what_the_mask_hides(xla_counts):
    model = Prior(32, Transformer((5, 4), num_classes=3, width=48, num_layers=3), head_width=48)
    arguments = np.zeros((2, 5, 4, 1), np.int32), np.zeros(2, np.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), *arguments)
    hidden = 2 * 3 * (20 * 19 // 2) * 2 * 48  # pairs of a position and a later one
    flop = 2 * (prior_flop(model, 5, 4) + hidden)
    assert flop < xla_counts(model.apply, params, *arguments) < EXTRA * flop


def test_priors_with_unknown_layers_are_not_counted():
    with pytest.raises(ArgumentError, match=r"^model: its network must be"):
        prior_flop(Prior(32, nn.Dense(3)), 5, 4)
