"""Model FLOP of the networks, from the shapes of their convolutions and products: two per weight and position.

Padding, recomputation, normalisation and activations are not counted. Convolutions that take fewer multiplications on
CPU (`networks/winograd.py`) count as if they took them all, as is usual.
"""

import math
from typing import Any

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.errors import ArgumentError
from hvq_jax.networks.encoder_decoder import Decoder, Encoder
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.transformer import Transformer


def _met(side: int, kernel: int, before: int, stride: int = 1) -> int:
    """Return the number of pairs of a tap and an input in a convolution along one axis, without padding."""
    outputs = range(0, side, stride)
    return sum(0 <= start - before + tap < side for start in outputs for tap in range(kernel))


def autoencoder_flop(model: Autoencoder) -> tuple[int, int]:
    """Return the FLOP per image of encoder and decoder, forward, and of the codebook search.

    Raises ArgumentError for networks other than the reference's, whose layers are not known here.
    """
    network = model.network
    if type(model.encoder()) is not Encoder or type(model.decoder()) is not Decoder:
        raise ArgumentError("model", "its encoder and decoder must be the reference's, whose layers are counted here")
    (height, width, channels), (h, w), dim = model.image_shape, model.latent_shape, model.latent_options.dim
    features, positions = network.width or dim, h * w

    def strided(halvings: int) -> int:
        """Return the taps of the 4×4 convolution, or transposed one, whose larger sides are halved so many times."""
        return _met(height >> halvings, 4, 1, 2) * _met(width >> halvings, 4, 1, 2)

    outermost = strided(0) * channels * features
    inner = sum(strided(halvings) for halvings in range(1, int(math.log2(network.factor)))) * features**2
    block = (_met(h, 3, 1) * _met(w, 3, 1) + positions) * features**2
    joined = positions * features * dim if features != dim else 0
    encoder = outermost + inner + network.num_blocks * block + joined
    decoder = encoder  # its layers are those of the encoder, mirrored
    return 2 * (encoder + decoder), 2 * positions * model.num_codes * dim


def prior_flop(model: Prior, height: int, width: int) -> int:
    """Return the FLOP per grid, forward, without what the mask hides; of all positions when drawing them too.

    Raises ArgumentError for another network than a PixelCNN or a transformer, whose layers are not known here.
    """
    of_network = {PixelCNN: _pixelcnn_products, Transformer: _transformer_products}.get(type(model.network))
    if of_network is None:
        raise ArgumentError("model", "its network must be a PixelCNN or a Transformer, whose layers are counted here")
    head = model.network.width * model.head_width + model.head_width * model.num_codes
    return 2 * (height * width * head + of_network(model.network, height, width))


def _transformer_products(network: Any, height: int, width: int) -> int:
    positions, features = height * width, network.width
    seen = positions * (positions + 1) // 2  # pairs of a position and one that it attends to
    dense = 3 + 1 + 4 + 4  # query, key and value; output; hidden layer and its output
    return network.num_layers * (positions * dense * features**2 + seen * 2 * features)


def _pixelcnn_products(network: Any, height: int, width: int) -> int:
    positions, features, total = height * width, network.width, 0
    for layer in range(network.num_layers):
        reach, seen = (3, 3) if layer == 0 else (1, 2)  # rows of the kernel, and columns to the left
        rows, above = _met(height, seen, reach), _met(width, 2 * reach + 1, reach)
        left = _met(width, seen, reach)
        kernels = (rows * above + height * left) * features * 2 * features
        total += kernels + positions * (4 + 1) * features * features  # vertical to horizontal; output
    return total
