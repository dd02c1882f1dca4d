"""The autoencoder: networks, bottleneck and losses put together as pure functions of (model, variables, batch).

`Autoencoder` only describes a model; it is hashable and can be closed over or passed as a static argument. All arrays
live in `Variables`. `axis_name` names the pmapped device axis, None means one device.
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax import bottleneck, latents
from hvq_jax.assignment import code_costs
from hvq_jax.bottleneck import Bottleneck, CodebookBottleneck, CodebookOptions, CodebookState, LatentOptions
from hvq_jax.codebook import MovingAverages
from hvq_jax.latents import HybridLatent
from hvq_jax.losses import Losses, LossWeights, entropy_term, losses_per_image, total_loss
from hvq_jax.metrics import Mean, Moments, mse, psnr, ssim
from hvq_jax.networks import Decoder, Encoder
from hvq_jax.residual import ResidualBottleneck
from hvq_jax.scalar_quantization import ScalarBottleneck


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """A model: image shape, networks, latent, codebook and loss."""

    image_shape: tuple[int, int, int]  # H, W, C; H and W multiples of 4
    skip: str = "identity"
    num_blocks: int = 2  # residual blocks of each network
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
    frequency: jax.Array  # [K], or [depth, K], float32, the table F
    averages: MovingAverages | None  # the codebook, where it is learned by moving averages


@struct.dataclass
class Variables:
    """All arrays of a model."""

    params: Any  # "encoder", "decoder" and what the bottleneck learns by gradient, such as "codebook" [K, D]
    state: ModelState

    @property
    def codes(self) -> jax.Array:
        """The codebook `[K, D]` float32 as it is kept; `codes` gives what the decoder sees in every kind of model."""
        averages = self.state.averages
        return self.params["codebook"] if averages is None else averages.codes


@struct.dataclass
class TrainingMetrics:
    """What a training step reports; scalars float32, means over the global batch."""

    loss: jax.Array
    losses: Losses  # unweighted terms
    entropy: jax.Array  # E[H(p)] - H(E[p]) in nats, 0 where it has no weight
    share_outside: jax.Array  # positions where the decoder does not see the plain code
    gain: jax.Array  # mean alpha
    counts: jax.Array  # [K], or [depth, K], assignments of this batch over all devices
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
    counts: jax.Array  # [K], or [depth, K], int32


def _encoder(model: Autoencoder, axis_name: str | None = None) -> Encoder:
    return Encoder(model.latent.dim, model.skip, axis_name, model.compute_dtype, model.num_blocks)


def _decoder(model: Autoencoder, axis_name: str | None = None) -> Decoder:
    return Decoder(
        model.latent.dim, model.image_shape[-1], model.skip, axis_name, model.compute_dtype, model.num_blocks
    )


def bottleneck_of(model: Autoencoder) -> Bottleneck:
    """The strategy between encoder and decoder; nothing else here depends on which it is."""
    if model.codebook.method == "fsq":
        return ScalarBottleneck(model.latent, model.codebook)
    if model.codebook.depth > 1:
        return ResidualBottleneck(model.latent, model.codebook)
    return CodebookBottleneck(model.latent, model.codebook)


def _codebook_state(params: Any, state: ModelState) -> CodebookState:
    learned = {name: arrays for name, arrays in params.items() if name not in ("encoder", "decoder")}
    return CodebookState(learned, state.frequency, state.averages)


def init(model: Autoencoder, key: jax.Array) -> Variables:
    """Fresh variables. Wrap in `jax.jit` (model static): eager initialisation compiles every operation by itself."""
    encoder_key, decoder_key, codebook_key = jax.random.split(key, 3)
    (height, width), dim = model.latent_shape, model.latent.dim
    encoder = _encoder(model).init(encoder_key, jnp.zeros((1, *model.image_shape)), train=True)
    decoder = _decoder(model).init(decoder_key, jnp.zeros((1, height, width, dim)), train=True)
    params = {"encoder": encoder["params"], "decoder": decoder["params"]}
    codebook = bottleneck_of(model).init(codebook_key)
    return Variables(
        params={**params, **codebook.params},
        state=ModelState(
            batch_stats={"encoder": encoder["batch_stats"], "decoder": decoder["batch_stats"]},
            frequency=codebook.frequency,
            averages=codebook.averages,
        ),
    )


def starts_from_data(model: Autoencoder) -> bool:
    """Whether fresh variables have to go through `start_from_data` before the first step."""
    return bottleneck_of(model).starts_from_data


def start_from_data(
    model: Autoencoder,
    params: Any,
    state: ModelState,
    images: jax.Array,
    key: jax.Array,
    *,
    axis_name: str | None = None,
) -> tuple[Any, ModelState]:
    """Fresh params and state, with codes made from the encoder outputs of images `[B, H, W, C]` in [-1, 1].

    These are what the first step sees: by the statistics of the batch, since the running ones know nothing yet. Nothing
    else changes. `key` must be equal on all devices; so is the result.
    """
    z_e, _ = encode_training(model, params, state, images, axis_name)
    before = _codebook_state(params, state)
    after = bottleneck_of(model).start_from_data(before, z_e, key, axis_name)
    return {**params, **after.params}, ModelState(state.batch_stats, after.frequency, after.averages)


def encode(model: Autoencoder, variables: Variables, images: jax.Array) -> jax.Array:
    """z_e `[B, h, w, D]` of float images `[B, H, W, C]` in [-1, 1], with the stored batch statistics."""
    chex.assert_shape(images, (None, *model.image_shape))
    collections = {
        "params": variables.params["encoder"],
        "batch_stats": variables.state.batch_stats["encoder"],
    }
    z_e: jax.Array = _encoder(model).apply(collections, images, train=False)  # type: ignore[assignment]
    return _normalised(model, z_e)


def _normalised(model: Autoencoder, z_e: jax.Array) -> jax.Array:
    """z_e in float32, at length 1 where codes and encoder outputs are normalised (Yu et al., arXiv:2110.04627)."""
    z_e = z_e.astype(jnp.float32)
    return latents.unit(z_e) if model.codebook.normalize else z_e


def decode(model: Autoencoder, variables: Variables, z_bar: jax.Array) -> jax.Array:
    """Images `[B, H, W, C]` in [-1, 1] from latents `[B, h, w, D]`, with the stored batch statistics."""
    collections = {
        "params": variables.params["decoder"],
        "batch_stats": variables.state.batch_stats["decoder"],
    }
    images: jax.Array = _decoder(model).apply(collections, z_bar, train=False)  # type: ignore[assignment]
    return images


def codes(model: Autoencoder, variables: Variables) -> jax.Array:
    """What the indices stand for, `[K, D]` float32: of unit norm, computed or a sum, as the model says.

    `[depth, K, D]` for residual quantization, where it is the sum of one of each.
    """
    return bottleneck_of(model).codes(_codebook_state(variables.params, variables.state))


def quantize(model: Autoencoder, variables: Variables, z_e: jax.Array) -> HybridLatent:
    """The hybrid latent of z_e `[..., D]` by the codes and the frequency table as they stand."""
    return bottleneck_of(model).quantize(_codebook_state(variables.params, variables.state), z_e)


def encode_to_latent(model: Autoencoder, variables: Variables, images: jax.Array) -> HybridLatent:
    """The hybrid latent of images `[B, H, W, C]` in [-1, 1]."""
    return quantize(model, variables, encode(model, variables, images))


def reconstruct(model: Autoencoder, variables: Variables, images: jax.Array) -> jax.Array:
    """Images `[B, H, W, C]` in [-1, 1] through encoder, latent and decoder."""
    return decode(model, variables, encode_to_latent(model, variables, images).z_bar)


def frequent(model: Autoencoder, frequency: jax.Array) -> jax.Array:
    """Which codes are frequent, `[K]` bool, by the table `frequency` `[K]` and the model's rule (S or mass)."""
    return bottleneck.frequent(model.latent, frequency)


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

    The order is fixed: encode; revive dead codes; assign; update F; mask by it; decode. The averages move last: the
    latent has the codes from before. `key` must be equal on all devices. The loss is this device's mean; the state and
    the metrics are the global batch's.
    """
    z_e, encoder_stats = encode_training(model, params, state, images, axis_name)
    latent, learned = bottleneck_of(model).train(_codebook_state(params, state), z_e, key, axis_name)
    reconstructions, decoder_stats = _apply_training(
        _decoder(model, axis_name), params["decoder"], state.batch_stats["decoder"], latent.z_bar
    )
    terms = _terms(model, images, reconstructions, z_e, latent)
    loss, entropy = jnp.mean(total_loss(terms, model.loss)), jnp.zeros(())
    if model.loss.entropy:
        costs = code_costs(z_e, learned.codes, model.codebook.assignment)
        entropy = entropy_term(costs, model.loss.entropy_temperature, axis_name)
        loss += model.loss.entropy * entropy
    metrics = TrainingMetrics(
        loss=loss,
        losses=jax.tree.map(jnp.mean, terms),
        entropy=entropy,
        share_outside=1.0 - jnp.mean(latent.discrete, dtype=jnp.float32),
        gain=jnp.mean(latent.gain),
        counts=learned.counts,
        revived=jnp.sum(learned.revived),
    )
    batch_stats = {"encoder": encoder_stats, "decoder": decoder_stats}
    return loss, (ModelState(batch_stats, learned.state.frequency, learned.state.averages), metrics)


def encode_training(
    model: Autoencoder, params: Any, state: ModelState, images: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, Any]:
    """z_e `[B, h, w, D]` as a training step sees it, by the statistics of the batch, and the new running statistics."""
    encoder = _encoder(model, axis_name)
    z_e, batch_stats = _apply_training(encoder, params["encoder"], state.batch_stats["encoder"], images)
    return _normalised(model, z_e), batch_stats


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

    def everywhere(values: jax.Array) -> jax.Array:
        """The mask of what belongs to each image, `[B, ...]`."""
        return jnp.broadcast_to(mask.reshape(-1, *[1] * (values.ndim - 1)), values.shape)

    return EvaluationSums(
        loss=Mean.of(total_loss(terms, model.loss), mask),
        losses=jax.tree.map(lambda term: Mean.of(term, mask), terms),
        mse=Mean.of(mse(images, reconstructions), mask),
        psnr=Mean.of(psnr(images, reconstructions), mask),
        ssim=Mean.of(ssim(images, reconstructions), mask),
        share_outside=Mean.of(~latent.discrete, everywhere(latent.discrete)),
        gain=Moments.of(latent.gain, everywhere(latent.gain)),
        counts=_counts(model, latent.indices, everywhere(latent.indices)),
    )


def _counts(model: Autoencoder, indices: jax.Array, mask: jax.Array) -> jax.Array:
    """How often each code is used where `mask` is True: `[K]` int32, `[depth, K]` from indices `[..., depth]`."""

    def count(indices: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.zeros(model.latent.num_codes, jnp.int32).at[indices.reshape(-1)].add(mask.reshape(-1))

    return count(indices, mask) if model.codebook.depth == 1 else jax.vmap(count, -1)(indices, mask)
