"""The autoencoder: networks, codebook, latents and losses put together as pure functions of (model, variables, batch).

`Autoencoder` only describes a model; it is hashable and can be closed over or passed as a static argument. All arrays
live in `Variables`. `axis_name` names the pmapped device axis, None means one device.
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax import codebook, latents
from hvq_jax.codebook import MovingAverages
from hvq_jax.latents import HybridLatent
from hvq_jax.losses import Losses, LossWeights, losses_per_image, total_loss
from hvq_jax.metrics import Mean, Moments, mse, psnr, ssim
from hvq_jax.networks import Decoder, Encoder

CODEBOOK_METHODS = ("gradient", "ema")
CODEBOOK_INITS = ("uniform", "data")


@dataclasses.dataclass(frozen=True)
class LatentOptions:
    """Which latent the decoder sees; see `latents.py`."""

    mode: str = "projected"
    num_codes: int = 512  # K
    dim: int = 64  # D, also the hidden width of both networks
    num_frequent: int = 312  # S, unused while frequent_mass is given
    frequent_mass: float | None = None
    frequency_decay: float = 0.99
    projection_gradient: str = "straight_through"


@dataclasses.dataclass(frozen=True)
class CodebookOptions:
    """How the codes are learned; see `codebook.py`."""

    method: str = "ema"  # "gradient": the codes are parameters
    init: str = "data"  # "uniform": U(-1/K, 1/K); "data": encoder outputs of the first batch (ema only)
    decay: float = 0.99
    revive_below: float = 1.0  # assignments a step (moving average); 0 revives none


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """A model: image shape, networks, latent, codebook and loss."""

    image_shape: tuple[int, int, int]  # H, W, C; H and W multiples of 4
    skip: str = "identity"
    compute_dtype: str = "float32"  # of the networks; see `networks.py`
    latent: LatentOptions = dataclasses.field(default_factory=LatentOptions)
    codebook: CodebookOptions = dataclasses.field(default_factory=CodebookOptions)
    loss: LossWeights = dataclasses.field(default_factory=LossWeights)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(h, w), the sides of the latent."""
        return self.image_shape[0] // 4, self.image_shape[1] // 4


@struct.dataclass
class ModelState:
    """What training changes without a gradient."""

    batch_stats: Any  # running means and variances
    frequency: jax.Array  # [K] float32, the table F
    averages: MovingAverages | None  # the codebook, where it is learned by moving averages


@struct.dataclass
class Variables:
    """All arrays of a model."""

    params: Any  # "encoder", "decoder" and, where it is trained by gradient, "codebook" [K, D]
    state: ModelState

    @property
    def codes(self) -> jax.Array:
        """The codebook `[K, D]` float32, wherever it is kept."""
        averages = self.state.averages
        return self.params["codebook"] if averages is None else averages.codes


@struct.dataclass
class TrainingMetrics:
    """What a training step reports; scalars float32, means over the global batch."""

    loss: jax.Array
    losses: Losses  # unweighted terms
    share_outside: jax.Array  # positions where the decoder does not see the plain code
    gain: jax.Array  # mean alpha
    counts: jax.Array  # [K], assignments of this batch over all devices
    revived: jax.Array  # codes put onto encoder outputs in this step


@struct.dataclass
class EvaluationSums:
    """Sums over evaluated images; add them up over batches, `psum` them over devices."""

    loss: Mean
    losses: Losses  # of Mean
    mse: Mean  # on [-1, 1]
    psnr: Mean  # dB
    ssim: Mean
    share_outside: Mean
    gain: Moments
    counts: jax.Array  # [K] int32


def _encoder(model: Autoencoder, axis_name: str | None = None) -> Encoder:
    return Encoder(model.latent.dim, model.skip, axis_name, model.compute_dtype)


def _decoder(model: Autoencoder, axis_name: str | None = None) -> Decoder:
    return Decoder(model.latent.dim, model.image_shape[-1], model.skip, axis_name, model.compute_dtype)


def init(model: Autoencoder, key: jax.Array) -> Variables:
    """Fresh variables. Wrap in `jax.jit` (model static): eager initialisation compiles every operation by itself."""
    encoder_key, decoder_key, codebook_key = jax.random.split(key, 3)
    (height, width), dim = model.latent_shape, model.latent.dim
    encoder = _encoder(model).init(encoder_key, jnp.zeros((1, *model.image_shape)), train=True)
    decoder = _decoder(model).init(decoder_key, jnp.zeros((1, height, width, dim)), train=True)
    params = {"encoder": encoder["params"], "decoder": decoder["params"]}
    codes = codebook.uniform_codes(codebook_key, model.latent.num_codes, dim)
    averages = None
    if model.codebook.method == "gradient":
        params["codebook"] = codes
    elif model.codebook.init == "data":
        averages = codebook.unassigned(codes)
    else:
        averages = codebook.assigned_once(codes)
    return Variables(
        params=params,
        state=ModelState(
            batch_stats={"encoder": encoder["batch_stats"], "decoder": decoder["batch_stats"]},
            frequency=jnp.zeros(model.latent.num_codes),
            averages=averages,
        ),
    )


def encode(model: Autoencoder, variables: Variables, images: jax.Array) -> jax.Array:
    """z_e `[B, h, w, D]` of float images `[B, H, W, C]` in [-1, 1], with the stored batch statistics."""
    chex.assert_shape(images, (None, *model.image_shape))
    collections = {
        "params": variables.params["encoder"],
        "batch_stats": variables.state.batch_stats["encoder"],
    }
    z_e: jax.Array = _encoder(model).apply(collections, images, train=False)  # type: ignore[assignment]
    return z_e


def decode(model: Autoencoder, variables: Variables, z_bar: jax.Array) -> jax.Array:
    """Images `[B, H, W, C]` in [-1, 1] from latents `[B, h, w, D]`, with the stored batch statistics."""
    collections = {
        "params": variables.params["decoder"],
        "batch_stats": variables.state.batch_stats["decoder"],
    }
    images: jax.Array = _decoder(model).apply(collections, z_bar, train=False)  # type: ignore[assignment]
    return images


def quantize(model: Autoencoder, variables: Variables, z_e: jax.Array) -> HybridLatent:
    """The hybrid latent of z_e `[..., D]` by the codes and the frequency table as they stand."""
    indices = latents.nearest_codes(z_e, variables.codes)
    return latents.hybrid_latent(
        z_e,
        variables.codes,
        indices,
        frequent(model, variables.state.frequency),
        mode=model.latent.mode,
        projection_gradient=model.latent.projection_gradient,
    )


def encode_to_latent(model: Autoencoder, variables: Variables, images: jax.Array) -> HybridLatent:
    """The hybrid latent of images `[B, H, W, C]` in [-1, 1]."""
    return quantize(model, variables, encode(model, variables, images))


def reconstruct(model: Autoencoder, variables: Variables, images: jax.Array) -> jax.Array:
    """Images `[B, H, W, C]` in [-1, 1] through encoder, latent and decoder."""
    return decode(model, variables, encode_to_latent(model, variables, images).z_bar)


def frequent(model: Autoencoder, frequency: jax.Array) -> jax.Array:
    """Which codes are frequent, `[K]` bool, by the table `frequency` `[K]` and the model's rule (S or mass)."""
    if model.latent.frequent_mass is not None:
        return latents.frequent_codes(frequency, frequent_mass=model.latent.frequent_mass)
    return latents.frequent_codes(frequency, num_frequent=model.latent.num_frequent)


def training_loss(
    model: Autoencoder,
    params: Any,
    state: ModelState,
    images: jax.Array,
    key: jax.Array,
    *,
    axis_name: str | None = None,
) -> tuple[jax.Array, tuple[ModelState, TrainingMetrics]]:
    """The loss of images `[B, H, W, C]` in [-1, 1], to be differentiated in `params`, and the state after the step.

    The order is fixed: encode; revive dead codes; assign; update F; mask by it; decode; update the averages. `key`
    must be equal on all devices. The loss is this device's mean; the state and the metrics are the global batch's.
    """
    z_e, encoder_stats = _apply_training(
        _encoder(model, axis_name), params["encoder"], state.batch_stats["encoder"], images
    )
    vectors = jax.lax.stop_gradient(z_e).astype(jnp.float32)
    frequency, averages, revived = state.frequency, state.averages, jnp.zeros((), bool)
    if averages is not None:
        averages, frequency, revived = codebook.revive(
            averages,
            frequency,
            vectors,
            key,
            below=model.codebook.revive_below,
            axis_name=axis_name,
        )
    codes = params["codebook"] if averages is None else averages.codes
    indices = latents.nearest_codes(vectors, jax.lax.stop_gradient(codes))
    counts = codebook.count_assignments(indices, model.latent.num_codes, axis_name)
    frequency = codebook.update_frequency(frequency, counts, model.latent.frequency_decay)
    latent = latents.hybrid_latent(
        z_e,
        codes,
        indices,
        frequent(model, frequency),
        mode=model.latent.mode,
        projection_gradient=model.latent.projection_gradient,
    )
    reconstructions, decoder_stats = _apply_training(
        _decoder(model, axis_name), params["decoder"], state.batch_stats["decoder"], latent.z_bar
    )
    terms = _terms(model, images, reconstructions, z_e, latent)
    loss = jnp.mean(total_loss(terms, model.loss))
    if averages is not None:
        averages = codebook.update_averages(
            averages,
            vectors,
            indices,
            counts,
            decay=model.codebook.decay,
            axis_name=axis_name,
        )
    metrics = TrainingMetrics(
        loss=loss,
        losses=jax.tree.map(jnp.mean, terms),
        share_outside=1.0 - jnp.mean(latent.discrete, dtype=jnp.float32),
        gain=jnp.mean(latent.gain),
        counts=counts,
        revived=jnp.sum(revived),
    )
    batch_stats = {"encoder": encoder_stats, "decoder": decoder_stats}
    return loss, (ModelState(batch_stats, frequency, averages), metrics)


def _apply_training(network: Encoder | Decoder, params: Any, batch_stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    collections = {"params": params, "batch_stats": batch_stats}
    y, updates = network.apply(collections, x, train=True, mutable=["batch_stats"])
    return y, updates["batch_stats"]


def _terms(
    model: Autoencoder,
    images: jax.Array,
    reconstructions: jax.Array,
    z_e: jax.Array,
    latent: HybridLatent,
) -> Losses:
    return losses_per_image(
        images,
        reconstructions,
        z_e,
        latent,
        mode=model.latent.mode,
        commitment_target=model.loss.commitment_target,
    )


def evaluation_sums(model: Autoencoder, variables: Variables, images: jax.Array, mask: jax.Array) -> EvaluationSums:
    """Figures of images `[B, H, W, C]` in [-1, 1] where `mask` `[B]` is True, with everything learned held fixed."""
    z_e = encode(model, variables, images)
    latent = quantize(model, variables, z_e)
    reconstructions = decode(model, variables, latent.z_bar)
    terms = _terms(model, images, reconstructions, z_e, latent)
    per_position = jnp.broadcast_to(mask[:, None, None], latent.indices.shape)
    counts = jnp.zeros(model.latent.num_codes, jnp.int32)
    return EvaluationSums(
        loss=Mean.of(total_loss(terms, model.loss), mask),
        losses=jax.tree.map(lambda term: Mean.of(term, mask), terms),
        mse=Mean.of(mse(images, reconstructions), mask),
        psnr=Mean.of(psnr(images, reconstructions), mask),
        ssim=Mean.of(ssim(images, reconstructions), mask),
        share_outside=Mean.of(~latent.discrete[..., 0], per_position),
        gain=Moments.of(latent.gain, per_position),
        counts=counts.at[latent.indices.reshape(-1)].add(per_position.reshape(-1)),
    )
