"""The autoencoder: networks, quantizer and losses put together as pure functions of (model, variables, batch).

`Autoencoder` only describes a model; it is hashable and can be closed over or passed as a static argument. All arrays
live in `Variables`. `axis_name` names the pmapped device axis; None means one device.
"""

import dataclasses
from collections.abc import Collection
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from hvq_jax import latents
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import HybridLatent, Latent
from hvq_jax.losses import Losses, LossOptions, losses_per_image, total_loss
from hvq_jax.metrics import Mean, Moments, mse, psnr, ssim
from hvq_jax.networks import make_decoder, make_encoder
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.parts import in_parts
from hvq_jax.quantizers import (
    CodebookOptions,
    LatentOptions,
    Quantizer,
    check_options,
    make_quantizer,
    weights_in_effect,
)
from hvq_jax.quantizers.bottleneck import QuantizerState, frozen_step
from hvq_jax.sharding import any_sharding, any_sharding_in


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """A model: image shape, networks, latent, codebook and loss."""

    image_shape: tuple[int, int, int]  # H, W, C
    network: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    latent_options: LatentOptions = dataclasses.field(default_factory=LatentOptions)
    codebook_options: CodebookOptions = dataclasses.field(default_factory=CodebookOptions)
    loss: LossOptions = dataclasses.field(default_factory=LossOptions)

    def __post_init__(self) -> None:
        """Check that the options are compatible with each other and with the images; raise ArgumentError."""
        encoder, decoder = self.encoder(), self.decoder()
        if encoder.factor != decoder.factor:
            raise ArgumentError(
                f"network.decoder={self.network.decoder}",
                f"enlarges latents {decoder.factor} times, but the encoder reduces images {encoder.factor} times",
            )
        height, width, _ = self.image_shape
        if height % encoder.factor or width % encoder.factor:
            raise ArgumentError(
                f"image_shape={self.image_shape}",
                f"images are {height}×{width}, and both sides must be multiples of {encoder.factor}, the factor by "
                "which the encoder reduces them: resize or crop the images (data.image_size)",
            )
        check_options(self.latent_options, self.codebook_options, self.loss)

    @property
    def row(self) -> Latent:
        """The row of `latents.LATENTS` that says what the decoder sees."""
        return latents.find_latent(self.latent_options.mode)

    @cached_property
    def quantizer(self) -> Quantizer:
        """The quantizer between encoder and decoder; nothing else in this module depends on its kind."""
        return make_quantizer(self.latent_options, self.codebook_options)

    def encoder(self, axis_name: str | None = None) -> Any:
        """Return the encoder's module."""
        return make_encoder(self.network, self.latent_options.dim, axis_name)

    def decoder(self, axis_name: str | None = None) -> Any:
        """Return the decoder's module."""
        return make_decoder(self.network, self.latent_options.dim, self.image_shape[-1], axis_name)

    @property
    def num_codes(self) -> int:
        """The number of codes, K."""
        return self.quantizer.num_codes

    @property
    def index_shape(self) -> tuple[int, ...]:
        """The shape of the indices of one position: (), or (L,) for L codes per position."""
        return self.quantizer.index_shape

    @property
    def latent_shape(self) -> tuple[int, int]:
        """The sides (h, w) of the latent."""
        factor = self.encoder().factor
        return self.image_shape[0] // factor, self.image_shape[1] // factor

    @cached_property
    def training_loss_options(self) -> LossOptions:
        """The weights in effect: 0 for terms that this quantizer does not use."""
        return weights_in_effect(self.loss, self.quantizer)


@struct.dataclass
class ModelState:
    """The variables that training updates without gradients."""

    batch_stats: dict[str, Any]  # "encoder" and "decoder": running means and variances; may be empty
    quantizer: QuantizerState


@struct.dataclass
class Variables:
    """All arrays of a model."""

    params: dict[str, Any]  # "encoder", "decoder" and "quantizer"
    state: ModelState


@struct.dataclass
class TrainingMetrics:
    """The report of a training step: float32 scalars, means over the global batch."""

    loss: jax.Array
    losses: Losses[jax.Array]  # unweighted terms
    entropy: jax.Array  # E[H(p)] - H(E[p]) in nats, 0 where it has no weight
    share_outside: jax.Array  # positions where the decoder does not see the plain code
    gain: jax.Array  # mean alpha
    counts: jax.Array  # [K], or [depth, K], int32, assignments of this batch over all devices
    revived: jax.Array  # codes moved onto encoder outputs in this step


@struct.dataclass
class EvaluationSums:
    """Sums over evaluated images; add them up over batches, `psum` them over devices."""

    loss: Mean
    losses: Losses[Mean]
    mse: Mean  # on [-1, 1]
    psnr: Mean  # dB
    ssim: Mean
    share_outside: Mean
    gain: Moments
    counts: jax.Array  # [K], or [depth, K], int32


def init(model: Autoencoder, key: jax.Array) -> Variables:
    """Return fresh variables.

    Wrap this in `jax.jit` (model static): eager initialisation compiles every operation separately.
    """
    encoder_key, decoder_key, quantizer_key = jax.random.split(key, 3)
    blank_latent = jnp.zeros((1, *model.latent_shape, model.latent_options.dim), jnp.float32)
    encoder = model.encoder().init(encoder_key, jnp.zeros((1, *model.image_shape), jnp.float32), train=True)
    decoder = model.decoder().init(decoder_key, blank_latent, train=True)
    quantizer_params, quantizer_state = model.quantizer.init(quantizer_key)
    networks = {"encoder": encoder, "decoder": decoder}
    return Variables(
        params={**{name: part["params"] for name, part in networks.items()}, "quantizer": quantizer_params},
        state=ModelState({name: part.get("batch_stats", {}) for name, part in networks.items()}, quantizer_state),
    )


@any_sharding_in(lambda result: ())
def start_from_data(
    model: Autoencoder,
    params: Any,
    state: ModelState,
    images: ArrayLike,
    key: jax.Array,
    *,
    axis_name: str | None = None,
    num_parts: int = 1,
) -> tuple[Any, ModelState]:
    """Return fresh params and state with codes made from the encoder outputs of images `[B, H, W, C]` in [-1, 1].

    Call this before the first step if `model.quantizer.starts_from_data`. The outputs are those that the first step
    sees: normalised by the statistics of the batch, since the running ones are not known yet. Nothing else changes.
    `key` must be equal on all devices; the result then is too. `num_parts` is that of `training_loss`.
    """
    images = jnp.asarray(images)
    z_e, _ = encode_training(model, params, state, images, axis_name, num_parts)
    quantizer_params, quantizer_state = model.quantizer.start_from_data(
        params["quantizer"], state.quantizer, z_e, key, axis_name
    )
    return {**params, "quantizer": quantizer_params}, ModelState(state.batch_stats, quantizer_state)


@any_sharding
def encode(model: Autoencoder, variables: Variables, images: ArrayLike) -> jax.Array:
    """Return z_e `[B, h, w, D]` of float images `[B, H, W, C]` in [-1, 1], with the stored batch statistics."""
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:] != model.image_shape:
        raise ValueError(f"images: must be [B, {', '.join(map(str, model.image_shape))}], not {list(images.shape)}")
    return model.quantizer.normalise(_apply(model.encoder(), "encoder", variables, images))


def _apply(network: Any, name: str, variables: Variables, x: jax.Array) -> jax.Array:
    collections = {"params": variables.params[name], "batch_stats": variables.state.batch_stats[name]}
    y: jax.Array = network.apply(collections, x, train=False)
    return y


@any_sharding
def decode(model: Autoencoder, variables: Variables, z_bar: ArrayLike) -> jax.Array:
    """Return images `[B, H, W, C]` in [-1, 1] of latents `[B, h, w, D]`, with the stored batch statistics."""
    z_bar = jnp.asarray(z_bar)
    return _apply(model.decoder(), "decoder", variables, z_bar)


def codes(model: Autoencoder, variables: Variables) -> jax.Array:
    """Return the code of each index, `[K, D]` float32: normalised, mapped or computed, depending on the model.

    For residual quantization the shape is `[depth, K, D]`, and a latent is the sum of one code per level.
    """
    return model.quantizer.codes(variables.params["quantizer"], variables.state.quantizer)


@any_sharding
def vectors(model: Autoencoder, variables: Variables, indices: ArrayLike) -> jax.Array:
    """Return z_q `[..., D]` float32 of `indices` `[..., *index_shape]`: the code, or what several codes make up."""
    indices = jnp.asarray(indices)
    return model.quantizer.vectors(variables.params["quantizer"], variables.state.quantizer, indices)


@any_sharding
def frequent_codes(model: Autoencoder, variables: Variables) -> jax.Array:
    """Return which codes are frequent now, `[K]` bool; only a latent with a mask makes a difference between them."""
    return model.latent_options.frequent_codes(variables.state.quantizer.frequency)


@any_sharding
def quantize(model: Autoencoder, variables: Variables, z_e: ArrayLike) -> HybridLatent:
    """Return the hybrid latent of z_e `[..., D]` from the current codes and frequency table."""
    z_e = jnp.asarray(z_e)
    return model.quantizer.quantize(variables.params["quantizer"], variables.state.quantizer, z_e)


@any_sharding
def encode_to_latent(model: Autoencoder, variables: Variables, images: ArrayLike) -> HybridLatent:
    """Return the hybrid latent of images `[B, H, W, C]` in [-1, 1]."""
    images = jnp.asarray(images)
    return quantize(model, variables, encode(model, variables, images))


@any_sharding
def reconstruct(model: Autoencoder, variables: Variables, images: ArrayLike) -> jax.Array:
    """Return images `[B, H, W, C]` in [-1, 1] after encoder, latent and decoder."""
    images = jnp.asarray(images)
    return decode(model, variables, encode_to_latent(model, variables, images).z_bar)


@any_sharding_in(lambda result: ())
def training_loss(
    model: Autoencoder,
    params: Any,
    state: ModelState,
    images: ArrayLike,
    key: jax.Array,
    *,
    axis_name: str | None = None,
    num_parts: int = 1,
    frozen: Collection[str] = (),
) -> tuple[jax.Array, tuple[ModelState, TrainingMetrics]]:
    """Return the loss of images `[B, H, W, C]` in [-1, 1], to be differentiated in `params`, and the state after it.

    The order is fixed: encode; revive dead codes; assign; update F; mask by it; decode. Moving averages are updated
    last; the latent uses the old codes. `key` must be equal on all devices. The loss is this device's mean; the
    state and the metrics are the global batch's.

    With `num_parts` the networks see the images of this device in so many equal parts, one after another, and keep
    activations of one part only (gradient accumulation). The quantizer sees all encoder outputs at once, so codes,
    frequencies, masks, revived codes and moving averages are those of the whole batch. Only batch normalisation
    differs: it takes the mean and variance of a part, and its running statistics move by the means of the parts'.

    The parts `frozen`, of "encoder", "decoder" and "quantizer", work as in evaluation, and their state stays as it is:
    batch normalisation takes the running statistics, and codes, their averages and frequencies do not move. Do not
    differentiate in their parameters.
    """
    images = jnp.asarray(images)
    z_e, encoder_stats = encode_training(model, params, state, images, axis_name, num_parts, "encoder" in frozen)
    if "quantizer" in frozen:
        latent, step = frozen_step(model.quantizer, params["quantizer"], state.quantizer, z_e, axis_name)
    else:
        latent, step = model.quantizer.step(params["quantizer"], state.quantizer, z_e, key, axis_name)
    reconstructions, decoder_stats = _apply_training(
        model.decoder(axis_name),
        params["decoder"],
        state.batch_stats["decoder"],
        latent.z_bar,
        num_parts,
        "decoder" in frozen,
    )
    terms = losses_per_image(images, reconstructions, z_e, latent, commitment_target=model.loss.commitment_target)
    loss, entropy = jnp.mean(total_loss(terms, model.training_loss_options)), jnp.zeros((), jnp.float32)
    if model.loss.entropy_weight:
        entropy = model.quantizer.entropy(z_e, step, model.loss.entropy_temperature, axis_name)
        loss += model.loss.entropy_weight * entropy
    metrics = TrainingMetrics(
        loss=loss,
        losses=jax.tree.map(jnp.mean, terms),
        entropy=entropy,
        share_outside=1.0 - jnp.mean(latent.discrete, dtype=jnp.float32),
        gain=jnp.mean(latent.gain),
        counts=step.counts,
        revived=jnp.sum(step.revived, dtype=jnp.int32),
    )
    batch_stats = {"encoder": encoder_stats, "decoder": decoder_stats}
    return loss, (ModelState(batch_stats, step.state), metrics)


@any_sharding_in(lambda result: result[0])
def encode_training(
    model: Autoencoder,
    params: Any,
    state: ModelState,
    images: ArrayLike,
    axis_name: str | None = None,
    num_parts: int = 1,
    frozen: bool = False,
) -> tuple[jax.Array, Any]:
    """Return z_e `[B, h, w, D]` as a training step sees it, by batch statistics, and the new running statistics.

    A `frozen` encoder takes the running ones and returns them.
    """
    images = jnp.asarray(images)
    encoder = model.encoder(axis_name)
    stats = state.batch_stats["encoder"]
    z_e, batch_stats = _apply_training(encoder, params["encoder"], stats, images, num_parts, frozen)
    return model.quantizer.normalise(z_e), batch_stats


def _apply_training(
    network: Any, params: Any, batch_stats: Any, x: jax.Array, num_parts: int, frozen: bool
) -> tuple[jax.Array, Any]:
    def apply(x: jax.Array) -> tuple[jax.Array, Any]:
        collections = {"params": params, "batch_stats": batch_stats}
        if frozen:
            return network.apply(collections, x, train=False), ()
        y, updates = network.apply(collections, x, train=True, mutable=["batch_stats"])
        return y, updates.get("batch_stats", {})

    y, updates = in_parts(apply, num_parts, x)
    return y, batch_stats if frozen else updates


@any_sharding_in(lambda result: ())
def evaluation_sums(model: Autoencoder, variables: Variables, images: ArrayLike, mask: ArrayLike) -> EvaluationSums:
    """Return sums over images `[B, H, W, C]` in [-1, 1] where `mask` `[B]` is True; nothing learned changes."""
    images, mask = jnp.asarray(images), jnp.asarray(mask)
    z_e = encode(model, variables, images)
    latent = quantize(model, variables, z_e)
    reconstructions = decode(model, variables, latent.z_bar)
    terms = losses_per_image(images, reconstructions, z_e, latent, commitment_target=model.loss.commitment_target)
    # Fused with what differs between latents, XLA would round the sums of equal terms differently.
    terms = jax.lax.optimization_barrier(terms)

    def everywhere(values: jax.Array) -> jax.Array:
        """Broadcast the mask to the shape of `values` `[B, ...]`."""
        return jnp.broadcast_to(mask.reshape(-1, *[1] * (values.ndim - 1)), values.shape)

    return EvaluationSums(
        loss=Mean.of(total_loss(terms, model.training_loss_options), mask),
        losses=jax.tree.map(lambda term: Mean.of(term, mask), terms),
        mse=Mean.of(mse(images, reconstructions), mask),
        psnr=Mean.of(psnr(images, reconstructions), mask),
        ssim=Mean.of(ssim(images, reconstructions), mask),
        share_outside=Mean.of(~latent.discrete, everywhere(latent.discrete)),
        gain=Moments.of(latent.gain, everywhere(latent.gain)),
        counts=_counts(model, latent.indices, everywhere(latent.indices)),
    )


def _counts(model: Autoencoder, indices: jax.Array, mask: jax.Array) -> jax.Array:
    """Count the uses of each code where `mask` is True: `[K]` int32, or `[L, K]` for indices `[..., L]`."""

    def count(indices: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.zeros(model.num_codes, jnp.int32).at[indices.reshape(-1)].add(mask.reshape(-1))

    return jax.vmap(count, -1)(indices, mask) if model.quantizer.index_shape else count(indices, mask)
