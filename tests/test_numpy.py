"""Numpy arrays are arguments of the public functions, alone and mixed with traced arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hvq_jax as hvq
from hvq_jax import autoencoder, latents, losses
from hvq_jax.priors import tokens
from hvq_jax.quantizers import make_quantizer
from hvq_jax.quantizers.assignment import code_costs
from tests.methods import METHODS

RNG = np.random.default_rng(0)
Z_E, CODES = RNG.normal(size=(6, 4)).astype(np.float32), RNG.normal(size=(5, 4)).astype(np.float32)
INDICES, FREQUENT, GAINS = np.array([0, 1, 2, 3, 4, 0], np.int32), np.arange(5) < 2, np.ones(6, np.float32)
MASK, COUNTS = np.arange(6) > 1, np.array([3, 0, 1, 1, 1])
IMAGES = RNG.uniform(-1, 1, (2, 8, 8, 1)).astype(np.float32)
LATENT = hvq.hybrid_latent(Z_E, CODES, INDICES, mode="projected")
TABLES = tokens.Tables(jnp.asarray(~FREQUENT), jnp.zeros(5, bool), centroids=jnp.array([[0.5, 2.0]]))
TOKENS = np.stack([INDICES, INDICES % 2], axis=-1)

# Each function with its arrays; any of them may be numpy's while the others are traced.
CALLS = {
    "nearest_codes": (hvq.nearest_codes, Z_E, CODES),
    "code_costs": (code_costs, Z_E, CODES),
    "hybrid_latent": (lambda *a: hvq.hybrid_latent(*a, mode="combined"), Z_E, CODES, INDICES, FREQUENT),
    "codes_of": (lambda z, c, f: hvq.codes_of(z, c, mode="frequency", frequent=f), Z_E, CODES, FREQUENT),
    "from_codes": (hvq.from_codes, INDICES, CODES, GAINS, Z_E),
    "frequent_codes": (lambda f: hvq.frequent_codes(f, num_frequent=2), GAINS),
    "project": (hvq.project, Z_E, Z_E),
    "straight_through": (hvq.straight_through, Z_E, Z_E),
    "rotation": (latents.rotation, Z_E, Z_E),
    "unit": (latents.unit, Z_E),
    "gain": (latents.gain, Z_E, Z_E),
    "signed_length": (latents.signed_length, Z_E, Z_E),
    "split_channels": (lambda z: latents.split_channels(z, 2), Z_E),
    "scaled": (latents.scaled, Z_E, GAINS),
    "plain_latent": (latents.plain_latent, Z_E, Z_E, INDICES, Z_E),
    "latent_from_codes": (latents.latent_from_codes, INDICES, CODES, GAINS),
    "codes_with": (lambda f: latents.LATENTS["combined"].codes_with("code", f), FREQUENT),
    "losses_per_image": (lambda x, y, z: losses.losses_per_image(x, y, z, LATENT), IMAGES, IMAGES, Z_E),
    "latent_losses": (lambda z: losses.latent_losses(z, LATENT, jnp.mean), Z_E),
    "masked_mean": (losses.masked_mean, Z_E, MASK),
    "entropy_term": (lambda c, m: losses.entropy_term(c, 1.0, mask=m), Z_E, MASK),
    "perplexity": (hvq.metrics.perplexity, COUNTS),
    "share_used": (hvq.metrics.share_used, COUNTS),
    "Mean": (hvq.metrics.Mean.of, GAINS, MASK),
    "Moments": (hvq.metrics.Moments.of, GAINS, MASK),
    **{name: (getattr(hvq.metrics, name), IMAGES, IMAGES) for name in ("mse", "psnr", "ssim")},
    "to_parts": (lambda t: tokens.to_parts(t, TABLES), TOKENS),
    "from_tokens": (lambda t, c: tokens.from_tokens(t, TABLES, lambda i: jnp.asarray(c)[i]), TOKENS, CODES),
    "split_latent": (lambda z, q, i: tokens.split_latent(latents.LATENTS["projected"], z, q, i, 2), Z_E, Z_E, INDICES),
    "to_tokens": (lambda i, n: tokens.to_tokens(tokens.Parts(i, n), TABLES), INDICES, GAINS[:, None]),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_argument_may_be_numpys(name):
    function, *arrays = CALLS[name]
    expected = function(*map(jnp.asarray, arrays))
    assert not any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(function(*arrays)))

    def close(x, y):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)

    @jax.jit
    def each_traced(traced):
        return [function(*arrays[:place], array, *arrays[place + 1 :]) for place, array in enumerate(traced)]

    for found in each_traced(arrays):
        jax.tree.map(close, found, expected)


@pytest.mark.parametrize("name", ["averages from data", "gradient", "residual", "scalars"])
def test_a_model_of_numpy_arrays_can_be_closed_over(name):
    """As it is read from a file: the images are traced, and the arrays of the model are not."""
    model = METHODS[name]
    variables = jax.device_get(jax.jit(lambda: autoencoder.init(model, jax.random.key(0)))())
    latent = jax.jit(lambda x: autoencoder.encode_to_latent(model, variables, x))(IMAGES)
    vectors = jax.jit(lambda i: autoencoder.vectors(model, variables, i))(latent.indices)
    assert vectors.shape == latent.z_bar.shape
    quantizer = make_quantizer(model.latent_options, model.codebook_options)
    arrays = variables.params["quantizer"], variables.state.quantizer
    z_e = np.asarray(latent.z_bar)
    _, step = jax.jit(lambda key: quantizer.step(*arrays, z_e, key, None))(jax.random.key(0))
    assert step.counts.sum() in (8, 8 * 3)
