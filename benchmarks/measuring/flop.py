"""Model FLOP of the networks, from the shapes of their convolutions and products: two per weight and position.

Padding, recomputation, normalisation and activations are not counted.
"""

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.priors.prior import Prior


def _met(side: int, kernel: int, before: int, stride: int = 1) -> int:
    """Return the number of pairs of a tap and an input in a convolution along one axis, without padding."""
    outputs = range(0, side, stride)
    return sum(0 <= start - before + tap < side for start in outputs for tap in range(kernel))


def autoencoder_flop(model: Autoencoder) -> tuple[int, int]:
    """Return the FLOP per image of encoder and decoder, forward, and of the codebook search."""
    (height, width, channels), (h, w), dim = model.image_shape, model.latent_shape, model.latent.dim

    def strided(height: int, width: int) -> int:
        """Return the number of taps of a 4×4 convolution, or of a transposed one, whose larger side this is."""
        return _met(height, 4, 1, 2) * _met(width, 4, 1, 2)

    ends = 2 * strided(height, width) * channels * dim  # the first and the last convolution
    inner = 2 * strided(height // 2, width // 2) * dim * dim
    block = (_met(h, 3, 1) * _met(w, 3, 1) + h * w) * dim * dim
    return 2 * (ends + inner + 4 * block), 2 * h * w * model.latent.num_codes * dim


def pixelcnn_flop(model: Prior, height: int, width: int) -> int:
    """Return the FLOP per grid, forward, including weights that the mask hides."""
    positions, features = height * width, model.network.width
    total = positions * (features * model.head_width + model.head_width * model.num_codes)
    for layer in range(model.network.num_layers):
        reach = 3 if layer == 0 else 1
        rows, above = _met(height, reach + 1, reach), _met(width, 2 * reach + 1, reach)
        left = _met(width, reach + 1, reach)
        kernels = (rows * above + height * left) * features * 2 * features
        total += kernels + positions * (4 + 1) * features * features  # vertical to horizontal; output
    return 2 * total
