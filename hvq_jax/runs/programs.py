"""The computations of a trained run, as pure functions of arrays and, by name, of models and options.

`StoredRun.compiled` compiles them. Most results are arrays by name: the fields of a class in `results.py`.

The same decoder may give other last bits in another program, where XLA fuses it with what comes before: of a million
values of images, a few are then rounded to the next grey level.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, EvaluationSums, Variables
from hvq_jax.codes import decoder_input, stored
from hvq_jax.data.pipeline import Batch
from hvq_jax.images import as_float, to_uint8
from hvq_jax.metrics import mse, psnr, ssim
from hvq_jax.priors.importance import sample_given_kept
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.sampling import Controls, Kept, sample
from hvq_jax.priors.tokens import Tables, from_tokens, to_parts, to_tokens
from hvq_jax.runs.latent_data import encode_parts
from hvq_jax.training.prior_stage import PriorStage

Arrays = dict[str, jax.Array]


def encode_outputs(images: jax.Array, variables: Variables, *, model: Autoencoder) -> jax.Array:
    """Return z_e `[B, h, w, D]` of images `[B, H, W, C]`, uint8 or float in [-1, 1]."""
    return autoencoder.encode(model, variables, as_float(images))


def quantize(z_e: jax.Array, variables: Variables, *, model: Autoencoder) -> Arrays:
    """Return the arrays of `Encoded` of z_e `[B, h, w, D]`."""
    latent = autoencoder.quantize(model, variables, z_e)
    found = {"indices": latent.indices, "gains": latent.gain_seen, "latents": latent.z_bar}
    residuals = stored(latent, z_e, model.row).residuals
    return found if residuals is None else {**found, "residuals": residuals}


def encode(images: jax.Array, variables: Variables, *, model: Autoencoder) -> Arrays:
    """Return the arrays of `Encoded` of images `[B, H, W, C]`, uint8 or float in [-1, 1]."""
    return quantize(encode_outputs(images, variables, model=model), variables, model=model)


def encoded_shapes(model: Autoencoder) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of `Encoded` of one image, without the first axis; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.uint8)
    variables = jax.eval_shape(partial(autoencoder.init, model), jax.random.key(0))
    found = jax.eval_shape(partial(encode, model=model), image, variables)
    return {name: array.shape[1:] for name, array in found.items()}


def quantize_between(
    first: jax.Array, last: jax.Array, shares: jax.Array, variables: Variables, *, model: Autoencoder
) -> Arrays:
    """Return the arrays of `Encoded` of (1 - share) z_e + share z_e', z_e and z_e' `[B, h, w, D]`, shares `[B]`."""
    shares = shares[:, None, None, None]
    return quantize(model.quantizer.normalise((1 - shares) * first + shares * last), variables, model=model)


def decode(latents: jax.Array, variables: Variables, *, model: Autoencoder) -> jax.Array:
    """Return uint8 images `[B, H, W, C]` of what the decoder sees, `[B, h, w, D]`."""
    return to_uint8(autoencoder.decode(model, variables, latents))


def decode_codes(
    indices: jax.Array, gains: jax.Array, residuals: jax.Array | None, variables: Variables, *, model: Autoencoder
) -> Arrays:
    """Return the arrays of `Decoded` of each code times its gain, plus its residual."""
    vectors = autoencoder.vectors(model, variables, indices)
    latents = decoder_input(vectors, indices, gains, residuals, model.index_shape)
    images = decode(latents, variables, model=model)
    return {"indices": indices, "images": images, "gains": gains, "latents": latents}


def tokenize(images: jax.Array, variables: Variables, tables: Tables, *, model: Autoencoder) -> jax.Array:
    """Return tokens `[B, h, w, L + c]` of images `[B, H, W, C]`, uint8 or float in [-1, 1]."""
    return to_tokens(encode_parts(model, variables, images), tables)


def decode_tokens(tokens: jax.Array, variables: Variables, tables: Tables, *, model: Autoencoder) -> Arrays:
    """Return the arrays of `Decoded` of tokens `[B, h, w, L + c]`."""
    vectors, groups = partial(autoencoder.vectors, model, variables), model.latent_options.projection_groups
    latents, gains = from_tokens(tokens, tables, vectors, groups)
    images = decode(latents, variables, model=model)
    return {"indices": tables.indices(tokens), "images": images, "gains": gains, "latents": latents}


def draw(
    labels: jax.Array,
    key: jax.Array,
    first: jax.Array,
    params: Any,
    tables: Tables,
    kept: Kept | None,
    controls: Controls,
    *,
    prior: Prior,
    grid: tuple[int, int],
    proposals: int,
) -> Arrays:
    """Return tokens `[B, h, w, L + c]` and, where each is chosen from several proposals, their effective number.

    Args:
        labels: [B] int32; unused by an unconditional prior.
        key: the key of all images; that of each is `fold_in(key, number)`.
        first: int32, the number of the first image.
        params: of the prior.
        tables: those of its tokens.
        kept: what is given instead of drawn, if anything.
        controls: how to draw.
        prior: the model.
        grid: (h, w).
        proposals: M, 1 to draw directly.
    """
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(first + jnp.arange(len(labels), dtype=jnp.int32))
    arguments = (prior, params, labels if prior.num_classes else None, keys, *grid)
    if kept is None or proposals == 1:
        drawn = sample(*arguments, has_continuous=tables.has_continuous, options=controls, kept=kept)
        return {"tokens": drawn.tokens}
    chosen = sample_given_kept(
        *arguments, has_continuous=tables.has_continuous, options=controls, kept=kept, proposals=proposals
    )
    return {"tokens": chosen.tokens, "effective_proposals": chosen.effective_proposals}


def split_tokens(tokens: jax.Array, tables: Tables, *, groups: int) -> Arrays:
    """Return the arrays of `Latents` of tokens `[B, h, w, L + c]`."""
    parts = to_parts(tokens, tables, groups)
    return {name: value for name, value in vars(parts).items() if value is not None}


def score(tokens: jax.Array, labels: jax.Array, params: Any, tables: Tables, *, prior: Prior) -> Arrays:
    """Return the arrays of `LogLikelihood` of tokens `[B, h, w, L + c]`, given labels `[B]` of a conditional prior."""
    nats: Any = prior.apply(params, tokens, labels if prior.num_classes else None, tables.has_continuous)
    return {"codes": -nats.codes, "continuous": -nats.continuous}


def evaluate_images(images: jax.Array, mask: jax.Array, variables: Variables, *, model: Autoencoder) -> EvaluationSums:
    """Return the sums over images `[B, H, W, C]`, uint8 or float in [-1, 1], where `mask` `[B]` is True."""
    return autoencoder.evaluation_sums(model, variables, as_float(images), mask)


def compare(images: jax.Array, others: jax.Array) -> Arrays:
    """Return the metrics `[B]` of images `[B, H, W, C]` and others, both uint8 or float in [-1, 1], by name."""
    pair = as_float(images), as_float(others)
    return {"mse": mse(*pair), "psnr": psnr(*pair), "ssim": ssim(*pair)}


def evaluate_latents(batch: Batch, params: Any, *, stage: PriorStage) -> Any:
    """Return the sums of the prior's stage over a batch of tokens."""
    return stage.evaluate(params, None, batch)
