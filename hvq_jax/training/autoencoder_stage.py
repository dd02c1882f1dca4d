"""The first stage: the autoencoder, as the training loop sees it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, EvaluationSums, ModelState, TrainingMetrics, Variables
from hvq_jax.data.pipeline import Batch
from hvq_jax.images import to_float, to_uint8
from hvq_jax.metrics import perplexity, share_used
from hvq_jax.quantizers import options_in_use
from hvq_jax.training.logging import RunLog
from hvq_jax.training.stage import Stage

_FEW_CODES = 0.1  # warn where a smaller share of the codes that could be in use is
_MANY_REVIVED = 0.03  # warn where a larger share of the codes is revived per step
_REMEDIES = ("init", "learning", "revive_below", "levels", "bits")  # options that help a codebook that has collapsed


@dataclasses.dataclass(frozen=True, eq=False)
class AutoencoderStage(Stage):
    """The stage for `model`; `fixed_images` uint8 `[N, H, W, C]` are reconstructed at each evaluation.

    The parts `frozen`, of encoder, decoder and quantizer, stay as they are.
    """

    name: ClassVar[str] = "autoencoder"
    objective: ClassVar[str] = "mse"
    items: ClassVar[str] = "images"

    model: Autoencoder
    fixed_images: np.ndarray
    frozen: tuple[str, ...] = ()

    @property
    def named_parts(self) -> tuple[Any, ...]:
        """The latent, the quantizer and the networks that the model's options name."""
        return self.model.row, self.model.quantizer, self.model.encoder(), self.model.decoder()

    @property
    def blank(self) -> "AutoencoderStage":
        """The stage without images."""
        return dataclasses.replace(self, fixed_images=self.fixed_images[:0])

    @property
    def item(self) -> jax.ShapeDtypeStruct:
        """An image `[H, W, C]` as it is placed on the devices."""
        return jax.ShapeDtypeStruct(self.model.image_shape, jnp.uint8)

    def init(self, key: jax.Array) -> tuple[Any, ModelState]:
        """Return fresh params and model state."""
        variables = autoencoder.init(self.model, key)
        return variables.params, variables.state

    def loss(
        self, params: Any, state: ModelState, batch: Batch, key: jax.Array, axis_name: str | None, num_parts: int = 1
    ) -> tuple[jax.Array, tuple[ModelState, TrainingMetrics]]:
        """Return `autoencoder.training_loss` of uint8 images."""
        images = to_float(batch.items)
        return autoencoder.training_loss(
            self.model, params, state, images, key, axis_name=axis_name, num_parts=num_parts, frozen=self.frozen
        )

    @property
    def starts_from_data(self) -> bool:
        """Whether codes must be initialised from encoder outputs before step 0."""
        return self.model.quantizer.starts_from_data

    def start_from_data(
        self, params: Any, state: ModelState, batch: Batch, key: jax.Array, axis_name: str | None, num_parts: int = 1
    ) -> tuple[Any, ModelState]:
        """Return params and model state with codes initialised from the encoder outputs of `batch`."""
        images = to_float(batch.items)
        return autoencoder.start_from_data(
            self.model, params, state, images, key, axis_name=axis_name, num_parts=num_parts
        )

    def evaluate(self, params: Any, state: ModelState, batch: Batch) -> EvaluationSums:
        """Return `autoencoder.evaluation_sums` of uint8 images."""
        return autoencoder.evaluation_sums(self.model, Variables(params, state), to_float(batch.items), batch.mask)

    @functools.partial(jax.jit, static_argnums=0)
    def _reconstruct(self, params: Any, state: ModelState) -> jax.Array:
        x = to_float(jnp.asarray(self.fixed_images))
        return to_uint8(autoencoder.reconstruct(self.model, Variables(params, state), x))

    @staticmethod
    def in_words(metrics: Mapping[str, float]) -> str:
        """Return the error of images and the use of the codes."""
        return f"MSE {metrics['mse']:.4f}, PSNR {metrics['psnr']:.2f} dB, {metrics['codes_used']:.0%} of codes in use"

    def show(self, log: RunLog, step: int, params: Any, state: ModelState, sums: EvaluationSums) -> None:
        """Log originals over reconstructions, and the histogram of code usage."""
        pairs = np.concatenate([self.fixed_images, self._reconstruct(params, state)], axis=1)  # [N, 2H, W, C]
        log.images(step, {"originals_over_reconstructions": np.concatenate(list(pairs), axis=1)})
        log.usage(step, np.asarray(sums.counts))

    def warnings(self, sums: EvaluationSums) -> dict[str, str]:
        """Return warnings about the use of the codes, by kind."""
        lines, used = {}, np.count_nonzero(sums.counts)
        size = sums.counts.shape[-1]
        # A few positions cannot use more codes than they are.
        possible = int(np.minimum(sums.counts.sum(axis=-1), size).sum())
        if used < _FEW_CODES * possible:
            in_use = options_in_use(self.model.codebook_options)
            remedies = [f"codebook.{name}" for name in _REMEDIES if name in in_use]
            lines["collapsed"] = f"{used} of {sums.counts.size} codes are in use: the codebook has collapsed" + (
                f", try another {', '.join(remedies)}" if remedies else ""
            )
        if self.model.row.masked and float(sums.share_outside.total) == 0:
            lines["nothing outside"] = (
                f"no position is outside the mask: the latent {self.model.latent_options.mode} is plain vq here, see "
                "latent.num_frequent and latent.frequent_mass"
            )
        return lines

    def step_warnings(self, metrics: TrainingMetrics) -> dict[str, str]:
        """Return a warning about codes that are revived all the time."""
        share = metrics.revived.mean() / metrics.counts[0].size
        if share <= _MANY_REVIVED:
            return {}
        line = (
            f"{share:.0%} of the codes are moved onto encoder outputs in every step: they fit the batch that they were "
            "taken from and no other; choose a lower codebook.revive_below, fewer codes or a larger batch"
        )
        return {"revived": line}

    def summarise_steps(self, metrics: TrainingMetrics) -> dict[str, float]:
        """Return means over the steps; perplexity is that of their batches together."""
        return {
            "reconstruction": float(metrics.losses.reconstruction.mean()),
            "codebook": float(metrics.losses.codebook.mean()),
            "commitment": float(metrics.losses.commitment.mean()),
            "projection": float(metrics.losses.projection.mean()),
            "entropy": float(metrics.entropy.mean()),
            "share_outside": float(metrics.share_outside.mean()),
            "gain": float(metrics.gain.mean()),
            "perplexity": float(perplexity(metrics.counts.sum(axis=0))),
            "revived_codes_per_step": float(metrics.revived.mean()),
        }

    def summarise(self, sums: EvaluationSums) -> dict[str, float]:
        """Return MSE on [-1, 1], PSNR in dB and SSIM on [0, 1], the loss's terms, perplexity and use of the codes."""
        return {
            "loss": float(sums.loss.value),
            "reconstruction": float(sums.losses.reconstruction.value),
            "mse": float(sums.mse.value),
            "psnr": float(sums.psnr.value),
            "ssim": float(sums.ssim.value),
            "codebook": float(sums.losses.codebook.value),
            "commitment": float(sums.losses.commitment.value),
            "projection": float(sums.losses.projection.value),
            "perplexity": float(perplexity(sums.counts)),
            "codes_used": float(share_used(sums.counts)),
            "share_outside": float(sums.share_outside.value),
            "gain_mean": float(sums.gain.mean),
            "gain_std": float(sums.gain.std),
        }
