"""The rate that a prior is compared with: that of codes by their frequencies in the training split."""

import math

import numpy as np

from hvq_jax.evaluation.histogram import histogram_nats
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.runs.batching import Images
from hvq_jax.runs.latent_files import read_codes_of_split
from hvq_jax.runs.trained import TrainedRun


def static_bits_of_codes(run: TrainedRun, images: Images, labels: np.ndarray | None = None) -> float:
    """Return the bits per image of the codes of `images`, by their frequencies at each position, without a prior.

    These are the frequencies in the class of each image, where all are known.

    Args:
        run: a run whose latents are stored, as by its prior's training.
        images: N of `[H, W, C]`, uint8 or float in [-1, 1].
        labels: [N] int32, -1 for no class; None: none has one.

    Raises:
        UserError: the run has no `latents.npz`, or it is damaged.
    """
    train, validation = (
        read_codes_of_split(run.workdir, run.model, len(run.class_names), name) for name in ("train", "validation")
    )
    codes = np.concatenate([encoded.indices for encoded in run.encode(images)])
    if labels is None or (labels == NO_CLASS).any():
        train, validation = ((indices, np.zeros_like(classes)) for indices, classes in (train, validation))
        labels = np.zeros(len(codes), np.int32)
    return histogram_nats(train, validation, (codes, labels), run.num_codes) / math.log(2)
