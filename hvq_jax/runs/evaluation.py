"""The metrics of a trained run on given images, as training reports them of its splits."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from hvq_jax.data.pipeline import Batch
from hvq_jax.runs import programs
from hvq_jax.runs.batching import Images, padded, padded_size, stacks
from hvq_jax.runs.trained import TrainedRun


def evaluate(run: TrainedRun, images: Images, labels: np.ndarray | None) -> dict[str, float]:
    """Return the metrics of `run` on images; of its prior too if labels are given.

    Args:
        run: a run with an autoencoder.
        images: N of `[H, W, C]`, uint8 or float in [-1, 1].
        labels: [N] int32, -1 for no class; None to leave out the prior.
    """
    metrics = run.autoencoder_stage.summarise(_added(_image_sums(run, images)))
    if labels is None:
        return metrics
    of_prior = run.scoring_stage.summarise(_added(_latent_sums(run, images, labels)))
    return {**of_prior, **metrics}  # `loss` is the autoencoder's; the prior's is its nats per position


def _image_sums(run: TrainedRun, images: Images) -> Iterable[Any]:
    program = run.compiled(programs.evaluate_images, model=run.model)
    for batch, size, mask in _batches(run, images):
        yield program(padded(batch, size), mask, run.variables_on_device)


def _latent_sums(run: TrainedRun, images: Images, labels: np.ndarray) -> Iterable[Any]:
    program = run.compiled(programs.evaluate_latents, stage=run.scoring_stage)
    numbers = stacks(labels)
    for batch, size, mask in _batches(run, images):
        tokens, residuals = next(run.tokens(batch)), next(run.encode(batch)).residuals
        items: Any = padded(tokens, size) if residuals is None else (padded(tokens, size), padded(residuals, size))
        yield program(Batch(items, padded(next(numbers), size), mask), run.prior_params_on_device)


def _batches(run: TrainedRun, images: Images) -> Iterable[tuple[np.ndarray, int, np.ndarray]]:
    """Yield images, the size to pad them to, and which will be no padding."""
    for batch in stacks(images):
        size = padded_size(len(batch), run.smallest_batch)
        yield batch, size, np.arange(size) < len(batch)


def _added(sums: Iterable[Any]) -> Any:
    """Return the sums over all batches, in float64: counts of positions stay exact beyond 2**24."""
    parts = [jax.device_get(part) for part in sums]
    return jax.tree.map(lambda *values: np.sum(np.asarray(values, np.float64), axis=0), *parts)
