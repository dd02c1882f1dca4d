"""What is exported of a run: an encoder, a decoder and a sampler, as functions that hold their parameters.

Every part takes and returns arrays by name. Their forms are stated once, here, and from them follow the programs'
signatures, the manifest, its README and the checks of a reader.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.export.manifest import BATCH, Form, Forms, form
from hvq_jax.images import to_float, to_uint8
from hvq_jax.latents import PROJECTION, Z_E, HybridLatent, scaled
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.sampling import SamplingOptions, sample
from hvq_jax.priors.tokens import Tables, from_tokens, to_parts
from hvq_jax.runs.programs import Arrays
from hvq_jax.runs.trained import TrainedRun


@dataclasses.dataclass(frozen=True)
class Part:
    """A function of arrays by name that returns arrays by name."""

    name: str
    function: Callable[..., Arrays]
    arguments: Forms
    results: Forms


def find_parts(run: TrainedRun, sampling: SamplingOptions, *, has_prior: bool) -> list[Part]:
    """Return the parts that `run` has; raise ArgumentError for options of `sampling` that its prior cannot follow."""
    parts = []
    if run.image_shape is not None:
        parts += autoencoder_parts(run.model, run.variables)
    if has_prior:
        parts.append(_sampler(run, sampling))
    return parts


def autoencoder_parts(model: Autoencoder, variables: Variables) -> list[Part]:
    """Return the encoder and the decoder of a model."""
    images, codes = _image_form(model), _code_forms(model)
    encode = _holding(partial(_encode, model), variables=_without(variables, "decoder"))
    decode = _holding(partial(_decode, model), variables=_without(variables, "encoder"))
    return [Part("encoder", encode, images, codes), Part("decoder", decode, codes, images)]


def _image_form(model: Autoencoder) -> Forms:
    meaning = "images; the networks see x = value / 127.5 - 1"
    return {"images": form((BATCH, *model.image_shape), "uint8", meaning, 0, 255)}


def _code_forms(model: Autoencoder) -> Forms:
    row, grid, groups = model.row, (BATCH, *model.latent_shape), model.latent_options.projection_groups
    each = "codes, one per position" if not model.quantizer.index_shape else "codes, several per position"
    forms: Forms = {"indices": form((*grid, *model.quantizer.index_shape), "int32", each, 0, model.num_codes - 1)}
    if row.uses(PROJECTION):
        meaning = "multiple of the code that the decoder sees; 1 where it sees the plain code"
        forms["gains"] = form((*grid, groups) if groups > 1 else grid, "float32", meaning)
    if row.uses(Z_E):
        meaning = "what is added to the code; 0 where the decoder sees the plain code"
        forms["residuals"] = form((*grid, model.latent_options.dim), "float32", meaning)
    return forms


def _without(variables: Variables, network: str) -> Variables:
    """Return variables without those of `network`, which would be stored with the program though it has no use."""
    params, stats = (
        {name: values for name, values in part.items() if name != network}
        for part in (variables.params, variables.state.batch_stats)
    )
    return Variables(params, dataclasses.replace(variables.state, batch_stats=stats))


def _holding(function: Callable[..., Arrays], **arrays: Any) -> Callable[..., Arrays]:
    """Return `function` with keyword arguments `arrays` as constants of its program.

    XLA must not compute with them while it compiles: that rounds differently from a program that takes them as
    arguments, as all others here do, and takes long.
    """

    def held(**arguments: jax.Array) -> Arrays:
        return function(**arguments, **jax.lax.optimization_barrier(arrays))

    return held


def _encode(model: Autoencoder, *, images: jax.Array, variables: Variables) -> Arrays:
    z_e = autoencoder.encode(model, variables, to_float(images))
    # One image at a time, because how a codebook is searched depends on the number of vectors, here unknown.
    latent: HybridLatent = jax.vmap(partial(autoencoder.quantize, model, variables))(z_e)
    found = {"indices": latent.indices}
    if model.row.uses(PROJECTION):
        found["gains"] = latent.gain_seen
    if model.row.uses(Z_E):
        found["residuals"] = jnp.where(latent.discrete | latent.projected, 0.0, z_e - latent.z_q)
    return found


def _decode(
    model: Autoencoder,
    *,
    indices: jax.Array,
    variables: Variables,
    gains: jax.Array | None = None,
    residuals: jax.Array | None = None,
) -> Arrays:
    z_bar = autoencoder.vectors(model, variables, indices)
    if gains is not None:
        z_bar = scaled(z_bar, gains)
    if residuals is not None:
        z_bar = z_bar + residuals
    return {"images": to_uint8(autoencoder.decode(model, variables, z_bar))}


def _sampler(run: TrainedRun, sampling: SamplingOptions) -> Part:
    run.sample(np.zeros(1, np.int32), options=sampling)  # checks them; nothing is drawn until it is iterated
    arguments = {
        "labels": _label_form(run, sampling),
        "seed": form((), "uint32", "image n depends on this, n and its label", 0, 2**32 - 1),
    }
    held: dict[str, Any] = {"params": run.prior_params, "tables": run.tables}
    if run.image_shape is None:
        return Part("sampler", _holding(partial(_draw_latents, run, sampling), **held), arguments, _latent_forms(run))
    held["variables"] = _without(run.variables, "encoder")
    results = {**_image_form(run.model), **_code_forms(run.model)}
    return Part("sampler", _holding(partial(_draw_images, run, sampling), **held), arguments, results)


def _label_form(run: TrainedRun, sampling: SamplingOptions) -> Form:
    if not run.prior.num_classes:
        return form((BATCH,), "int32", "only their number counts")
    names = ", ".join(f"{number} {name}" for number, name in enumerate(run.class_names))
    may_be_none = run.options.prior.label_dropout and not sampling.guidance
    meaning = f"classes: {names}{'; -1 no class' if may_be_none else ''}"
    return form((BATCH,), "int32", meaning, NO_CLASS if may_be_none else 0, len(run.class_names) - 1)


def _latent_forms(run: TrainedRun) -> Forms:
    """Return the forms of what a prior alone draws."""
    grid, options = (BATCH, *run.latent_shape), run.options.latent
    forms: Forms = {"indices": form((*grid, *run.tables.index_shape), "int32", "codes", 0, run.prior.num_codes - 1)}
    if run.tables.centroids is not None:
        forms["lengths"] = form((*grid, options.projection_groups), "float32", "signed lengths")
    if run.tables.step:
        forms["residuals"] = form((*grid, options.dim), "float32", "z_e - code")
    return forms


def _draw_latents(
    run: TrainedRun, sampling: SamplingOptions, *, labels: jax.Array, seed: jax.Array, params: Any, tables: Tables
) -> Arrays:
    tokens = _draw_tokens(run, sampling, labels, seed, params, tables)
    parts = to_parts(tokens, tables, run.options.latent.projection_groups)
    return {name: value for name, value in vars(parts).items() if value is not None}


def _draw_images(
    run: TrainedRun,
    sampling: SamplingOptions,
    *,
    labels: jax.Array,
    seed: jax.Array,
    params: Any,
    tables: Tables,
    variables: Variables,
) -> Arrays:
    tokens = _draw_tokens(run, sampling, labels, seed, params, tables)
    vectors, groups = partial(autoencoder.vectors, run.model, variables), run.options.latent.projection_groups
    z_bar, gains = from_tokens(tokens, tables, vectors, groups)
    images = to_uint8(autoencoder.decode(run.model, variables, z_bar))
    found = {"images": images, "indices": tables.indices(tokens)}
    if run.model.row.uses(PROJECTION):
        found["gains"] = gains
    if (residuals := to_parts(tokens, tables, groups).residuals) is not None:
        found["residuals"] = jnp.asarray(residuals)
    return found


def _draw_tokens(
    run: TrainedRun, sampling: SamplingOptions, labels: jax.Array, seed: jax.Array, params: Any, tables: Tables
) -> jax.Array:
    numbers = jnp.arange(labels.shape[0], dtype=jnp.int32)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(numbers)
    drawn = sample(
        run.prior,
        params,
        labels if run.prior.num_classes else None,
        keys,
        *run.latent_shape,
        has_continuous=tables.has_continuous,
        options=sampling,
    )
    return drawn.tokens
