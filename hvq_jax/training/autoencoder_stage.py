"""The first stage: the autoencoder, as the training loop sees it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, EvaluationSums, ModelState, TrainingMetrics, Variables
from hvq_jax.data.pipeline import Batch
from hvq_jax.images import to_float, to_uint8
from hvq_jax.metrics import perplexity, share_used
from hvq_jax.training.logging import RunLog
from hvq_jax.training.loop import Stage

NAME = "autoencoder"

_FEW_CODES = 0.1  # a smaller share of the codebook in use deserves a warning


def autoencoder_stage(model: Autoencoder, fixed_images: np.ndarray) -> Stage:
    """The stage for `model`; `fixed_images` uint8 `[N, H, W, C]` are reconstructed at each evaluation."""

    def init(key: jax.Array) -> tuple[Any, ModelState]:
        variables = autoencoder.init(model, key)
        return variables.params, variables.state

    def loss(
        params: Any, state: ModelState, batch: Batch, key: jax.Array, axis_name: str | None
    ) -> tuple[jax.Array, tuple[ModelState, TrainingMetrics]]:
        return autoencoder.training_loss(model, params, state, to_float(batch.images), key, axis_name=axis_name)

    def start_from_data(
        params: Any, state: ModelState, batch: Batch, key: jax.Array, axis_name: str | None
    ) -> tuple[Any, ModelState]:
        return autoencoder.start_from_data(model, params, state, to_float(batch.images), key, axis_name=axis_name)

    def evaluate(params: Any, state: ModelState, batch: Batch) -> EvaluationSums:
        return autoencoder.evaluation_sums(model, Variables(params, state), to_float(batch.images), batch.mask)

    @jax.jit
    def reconstruct(params: Any, state: ModelState) -> jax.Array:
        x = to_float(jnp.asarray(fixed_images))
        return to_uint8(autoencoder.reconstruct(model, Variables(params, state), x))

    told: set[str] = set()  # what the evaluation before was warned of, which is not said again

    def show(log: RunLog, step: int, params: Any, state: ModelState, sums: EvaluationSums) -> None:
        pairs = np.concatenate([fixed_images, reconstruct(params, state)], axis=1)  # [N, 2H, W, C]
        log.images(step, {"originals_over_reconstructions": np.concatenate(list(pairs), axis=1)})
        log.usage(step, np.asarray(sums.counts))
        found = warnings(model, sums)
        for kind, line in found.items():
            if kind not in told:
                log.say(f"warning: {line}")
        told.clear()
        told.update(found)

    return Stage(
        name=NAME,
        objective="mse",
        init=init,
        loss=loss,
        evaluate=evaluate,
        summarise_steps=summarise_steps,
        summarise=summarise,
        show=show,
        start_from_data=start_from_data if autoencoder.starts_from_data(model) else None,
    )


def warnings(model: Autoencoder, sums: EvaluationSums) -> dict[str, str]:
    """What an evaluation shows to be wrong with the use of the codes: a line for each kind of fault."""
    lines, used = {}, np.count_nonzero(sums.counts)
    if used < _FEW_CODES * sums.counts.size:
        lines["collapsed"] = (
            f"{used} of {sums.counts.size} codes are in use: the codebook has collapsed, see "
            "codebook.init and codebook.revive_below"
        )
    if model.latent.mode in ("frequency", "combined") and float(sums.share_outside.total) == 0:
        lines["nothing outside"] = (
            f"no position is outside the mask: the latent {model.latent.mode} is plain vq here, see "
            "latent.num_frequent and latent.frequent_mass"
        )
    return lines


def summarise_steps(metrics: TrainingMetrics) -> dict[str, float]:
    """Figures of several training steps; each leaf of `metrics` has a leading axis of steps."""
    return {
        "reconstruction": float(metrics.losses.reconstruction.mean()),
        "codebook": float(metrics.losses.codebook.mean()),
        "commitment": float(metrics.losses.commitment.mean()),
        "projection": float(metrics.losses.projection.mean()),
        "entropy": float(metrics.entropy.mean()),
        "share_outside": float(metrics.share_outside.mean()),
        "gain": float(metrics.gain.mean()),
        "perplexity": float(perplexity(metrics.counts.sum(axis=0))),
        "revived_codes": float(metrics.revived.sum()),
    }


def summarise(sums: EvaluationSums) -> dict[str, float]:
    """Figures of a whole split: MSE on [-1, 1], PSNR in dB and SSIM on [0, 1], perplexity and use of the codes."""
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
