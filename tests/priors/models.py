"""Small priors, and helpers for the tests of all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior


def pixelcnn_prior(num_codes, num_classes=0, width=8, num_layers=2, head_width=16, heads=(), codes=1, **options):
    network = PixelCNN(num_classes, width, num_layers, **options)
    return Prior(num_codes, network, heads, head_width, codes)


def all_logits(prior, indices, labels=None):
    """A method: logits `[B, h, w, K]` of plain codes `[B, h, w]`."""
    return prior.code_logits(prior.features(indices[..., None], labels, None))


def logits_of(prior):
    return jax.jit(functools.partial(prior.apply, method=all_logits))


def random_variables(prior, tokens, labels=None, has_continuous=None, seed=0):
    """Return random parameters, including biases, without compiling `init`."""
    shapes = jax.eval_shape(prior.init, jax.random.key(0), jnp.asarray(tokens), labels, has_continuous)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


def one_by_one(prior, variables, tokens, labels=None, has_continuous=None):
    """Features `[B, h, w, width]` of tokens, computed as a sampler does."""
    call = jax.jit(functools.partial(prior.apply, variables), static_argnames="method")
    batch, height, width, _ = tokens.shape
    memory = prior.network.blank_memory(batch, height, width)
    features = np.empty((batch, height, width, prior.network.width), np.float32)
    for i in range(height):
        memory = call(memory, labels, method="begin_row")
        for j in range(width):
            memory, here = call(memory, j, method="next_features")
            assert here.dtype == jnp.float32
            features[:, i, j] = here
            memory = call(memory, tokens[:, i, j], has_continuous, j, method="remember")
    return features
