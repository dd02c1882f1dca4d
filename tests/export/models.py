"""Tiny models of every kind of latent and quantizer, whose arrays are random but not as they were initialised."""

import jax
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder
from hvq_jax.latents import LATENTS
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.quantizers import CodebookOptions, LatentOptions

_LATENT = {"dim": 8, "num_codes": 16, "num_frequent": 8}

# The options of each: of the latent, the codebook and the network.
KINDS = {
    **{mode: ({"mode": mode}, {}, {}) for mode in LATENTS},
    "groups": ({"mode": "projected", "projection_groups": 2}, {}, {}),
    "residual": ({"mode": "vq"}, {"family": "residual", "depth": 3}, {}),
    "fsq": ({"mode": "vq"}, {"family": "fsq", "levels": (5, 4, 2)}, {}),
    "half": ({"mode": "vq"}, {}, {"factor": 2, "compute_dtype": "bfloat16", "width": 4, "num_blocks": 1}),
}


def tiny_model(kind):
    """Return the model and its variables."""
    latent, codebook, network = KINDS[kind]
    model = Autoencoder(
        (8, 8, 1),
        NetworkOptions(**{"num_blocks": 0, **network}),
        LatentOptions(**{**_LATENT, **latent}),
        CodebookOptions(**codebook),
    )
    variables = jax.jit(lambda key: autoencoder.init(model, key))(jax.random.key(0))

    rng = np.random.default_rng(1)

    def moved(array):
        noise = 0.3 * np.abs(rng.standard_normal(array.shape, np.float32))
        return array + noise if array.dtype == np.float32 else array

    return model, jax.tree.map(moved, jax.device_get(variables))
