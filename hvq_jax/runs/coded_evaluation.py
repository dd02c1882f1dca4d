"""What images cost as an .hvq file of a trained run, and how they come back from it: written, read and compared."""

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from hvq_jax.errors import ArgumentError
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.runs import programs
from hvq_jax.runs.batching import BATCH, Images, padded, padded_size, stacks
from hvq_jax.runs.compression import RunCodec, decompressed
from hvq_jax.runs.trained import TrainedRun


def evaluate_coded(
    run: TrainedRun,
    images: Images,
    labels: np.ndarray | None = None,
    *,
    portable: bool = False,
    timed: bool = False,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> dict[str, float]:
    """Return what `images` cost under the prior and as a file, and how well they come back from the file.

    The metrics by name:

    * `num_images`: N
    * `bits_per_image`: of the latents under the prior, given the labels
    * `label_bits_per_image`: of a label in the file, log2(classes + 1); 0 without labels
    * `coded_bytes`: of the file, header and checksums included
    * `coded_bits_per_image`: the same in bits, per image
    * `coded_ratio`: `coded_bits_per_image` / (`bits_per_image` + `label_bits_per_image`)
    * `coded_mse`, `coded_psnr`, `coded_ssim`: of the images that the file holds, as in `hvq_jax.metrics`
    * `compress_ms_per_image`, if timed: from images to a verified file; decoding its latents for that is included
    * `decompress_ms_per_image`, if timed: from the file to images

    Args:
        run: a run with an autoencoder and a prior.
        images: N of `[H, W, C]`, uint8 or float in [-1, 1].
        labels: [N] int32, the classes that the prior is given and the file tells; None: no class.
        portable: write a portable file.
        timed: measure the time, too, once everything is compiled.
        watch: a function that yields the items it is given, and may raise between two of them to stop.

    Raises:
        ArgumentError: there is no image, or the labels do not fit the run.
        UserError: there is no prior, or the package `constriction` is not installed.
    """
    if not len(images):
        raise ArgumentError("images", "there are none")
    codec = run.made_once(RunCodec, with_labels=labels is not None, portable=portable)
    given = np.full(len(images), NO_CLASS, np.int32) if labels is None else labels
    if timed:
        _compile(codec, images, given)
    compressing, decompressing = _Stopwatch(), _Stopwatch()
    nats: list[np.ndarray] = []
    errors: list[dict[str, np.ndarray]] = []
    with tempfile.TemporaryFile() as file:
        parts = codec.compressed(watch(codec.tokens_of(images)), given)
        num_bytes = sum(file.write(part) for part in compressing.items(parts))
        file.seek(0)
        originals = iter(images)
        for piece in decompressing.items(watch(decompressed(run, file, num_bytes))):
            nats += [-found.per_image for found in run.log_likelihood(piece.tokens, piece.labels)]
            errors += _errors(run, np.stack(list(itertools.islice(originals, len(piece.images)))), piece.images)
    bits = float(np.concatenate(nats).mean(dtype=np.float64)) / math.log(2)
    label_bits = math.log2(run.prior.num_classes + 1) if codec.with_labels else 0.0
    coded_bits = 8 * num_bytes / len(images)
    found = {
        "num_images": len(images),
        "bits_per_image": bits,
        "label_bits_per_image": label_bits,
        "coded_bytes": num_bytes,
        "coded_bits_per_image": coded_bits,
        "coded_ratio": coded_bits / (bits + label_bits),
    }
    for name in errors[0]:
        found[f"coded_{name}"] = float(np.concatenate([each[name] for each in errors]).mean(dtype=np.float64))
    if timed:
        found["compress_ms_per_image"] = 1000 * compressing.seconds / len(images)
        found["decompress_ms_per_image"] = 1000 * decompressing.seconds / len(images)
    return found


def _errors(run: TrainedRun, originals: np.ndarray, decoded: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Yield the image metrics `[n]` by name, for up to `BATCH` images at a time."""
    compare = run.compiled(programs.compare)
    for batch, returned in zip(stacks(originals), stacks(decoded), strict=True):
        size = padded_size(len(batch), run.smallest_batch)
        found = compare(padded(batch, size), padded(returned, size))
        yield {name: np.asarray(values)[: len(batch)] for name, values in found.items()}


def _compile(codec: RunCodec, images: Images, labels: np.ndarray) -> None:
    """Pass a few images there and back, so that all programs are compiled."""
    (tokens,) = codec.tokens_of(itertools.islice(images, BATCH))
    batch = codec.header(len(images)).batch
    codec.codec.encode(tokens[:batch], labels[: min(batch, len(tokens))], batch)
    codec.images_of(tokens)


class _Stopwatch:
    """The time that items take to be made."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def items(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items; count the time until each is there, not that until the next is requested."""
        iterator = iter(items)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - start
            yield item
