"""What a point costs and how its images come back."""

from typing import Any

import jax
import numpy as np

from hvq_jax.runs import programs
from hvq_jax.runs.batching import joined, padded, stacks
from hvq_jax.runs.coded_evaluation import evaluate_coded
from hvq_jax.runs.latent_data import LatentData
from hvq_jax.runs.trained import TrainedRun
from studies.rates.measure import continuous_bits, static_bits

QUALITIES = ("mse", "psnr", "ssim")
NUM_EXAMPLES = 8  # images whose bits are kept by position


def measure(run: TrainedRun, fine_tuned: TrainedRun, latents: LatentData, images: np.ndarray) -> dict[str, Any]:
    """Return bits per image of the first test images, and their quality with either decoder.

    Args:
        run: a run with a prior over tokens without classes.
        fine_tuned: the same with another decoder.
        latents: the tokens of all images.
        images: `[N, H, W, C]` uint8, the first of the test split.

    Returns:
        as_trained, fine_tuned: `QUALITIES`; those of `fine_tuned` are of images that were read from a file.
        prior_bits, coded_bits: per image, under the prior and of that file.
        bits_by_position: `codes` and `continuous`, `[h][w]`, their means under the prior.
        static_bits: `codes`, by their histogram at each position in the training split, and `continuous`, by those
            of bins given the code and of residuals given the channel; per image, over the whole test split.
    """
    coded = evaluate_coded(fine_tuned, images)
    tokens = latents.test.items[: len(images)].astype(np.int32)
    scored = joined(run.log_likelihood(tokens, np.full(len(tokens), -1, np.int32)))
    bits = {name: -getattr(scored, name) / np.log(2) for name in ("codes", "continuous")}
    decoded = joined(run.images_of(tokens)).images
    return {
        "num_images": len(images),
        "as_trained": quality(run, images, decoded),
        "fine_tuned": {name: coded[f"coded_{name}"] for name in QUALITIES},
        "prior_bits": {name: float(each.sum(axis=(1, 2)).mean(dtype=np.float64)) for name, each in bits.items()},
        "coded_bits": coded["coded_bits_per_image"],
        "static_bits": {
            "codes": bits_of_codes(latents) / len(latents.test),
            "continuous": _bits_of_continuous(run, latents) / len(latents.test),
        },
        "bits_by_position": {name: rounded(each.mean(axis=0, dtype=np.float64)) for name, each in bits.items()},
    }


def examples(run: TrainedRun, latents: LatentData, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return some images, those decoded from their tokens, and the bits of each position, `[N, h, w]` float32."""
    tokens = latents.test.items[:NUM_EXAMPLES].astype(np.int32)
    scored = joined(run.log_likelihood(tokens, np.full(len(tokens), -1, np.int32)))
    return {
        "originals": images[:NUM_EXAMPLES],
        "decoded": joined(run.images_of(tokens)).images,
        "codes": (-scored.codes / np.log(2)).astype(np.float32),
        "continuous": (-scored.continuous / np.log(2)).astype(np.float32),
    }


def quality(run: TrainedRun, originals: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    """Return `QUALITIES` of images `[N, H, W, C]` uint8, each a mean over the images."""
    compare = run.compiled(programs.compare)
    found: list[dict[str, np.ndarray]] = []
    for batch, returned in zip(stacks(originals), stacks(decoded), strict=True):
        size = run.smallest_batch
        values = jax.device_get(compare(padded(batch, size), padded(returned, size)))
        found.append({name: values[name][: len(batch)] for name in QUALITIES})
    return {name: float(np.concatenate([each[name] for each in found]).mean(dtype=np.float64)) for name in QUALITIES}


def bits_of_codes(latents: LatentData) -> float:
    """Return the bits of all codes of the test split by their histograms in the training split at each position.

    A position with several codes has a histogram for each of them.
    """
    depth = int(np.prod(latents.tables.index_shape, dtype=int))
    train, test = (split.items[..., :depth].astype(int) for split in (latents.train, latents.test))
    places = np.arange(np.prod(train.shape[1:])).reshape(train.shape[1:])
    return static_bits(train, test, (np.broadcast_to(places, train.shape), np.broadcast_to(places, test.shape)))


def _bits_of_continuous(run: TrainedRun, latents: LatentData) -> float:
    if latents.tables.index_shape:
        return 0.0
    return continuous_bits(latents, run.model.latent_options.projection_groups)


def rounded(values: np.ndarray) -> Any:
    """Return an array as nested lists of numbers with four decimals."""
    return np.round(values, 4).tolist()
