"""A trained run for notebooks and scripts: arrays in, arrays out."""

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hvq_jax import autoencoder
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.priors.importance import check_proposals
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.sampling import Kept, SamplingOptions
from hvq_jax.runs.array_arguments import (
    check_floats,
    check_images,
    check_integers,
    check_mask,
    check_same_length,
    is_prefix,
)
from hvq_jax.runs.batching import joined
from hvq_jax.runs.class_labels import Labels, class_numbers
from hvq_jax.runs.coded_evaluation import evaluate_coded
from hvq_jax.runs.compression import Decompressed, compress, decompress
from hvq_jax.runs.evaluation import evaluate
from hvq_jax.runs.results import Decoded, Encoded, Latents, LogLikelihood
from hvq_jax.runs.stored_codes import check_codes
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.value_range import ValueRange


def load(workdir: str | Path) -> "LoadedRun":
    """Open the trained run in `workdir`; checkpoints are read when they are first needed.

        run = hvq.load("runs/quickstart")
        run.sample("Dress", 4).images                       # [4, 28, 28, 1] uint8
        codes = run.encode(images)                          # codes.indices [N, 7, 7], codes.gains [N, 7, 7]
        run.decode(codes.indices, codes.gains)              # [N, 28, 28, 1] uint8

    Raises:
        UserError: there is no run in `workdir`, or its files are damaged.
    """
    return LoadedRun(dataclasses.replace(TrainedRun.load(workdir), smallest_batch=1))


@dataclasses.dataclass(frozen=True, repr=False)
class LoadedRun:
    """The best autoencoder and prior of a workdir.

    **Images** are uint8 or float, `[N, H, W, C]` or one `[H, W, C]`, and `[N, H, W]` or `[H, W]` where C = 1. Float
    images are in [-1, 1]; those without a negative value may be meant in [0, 1] as well, and need `value_range=(0, 1)`
    or `(-1, 1)`. One image counts as N = 1: all results have the axis N.

    **Labels** are names or numbers, one for all images or one for each; None, or -1 among numbers, is no class.

    **Speed.** The first call of a method compiles it; later calls reuse that for up to 64 images, padded to a power of
    two, and more are computed in batches of 64. Batches of different sizes agree up to rounding: decoded images may
    differ by a grey level, and a code only where two tie. `stream` has the same methods for more images than fit into
    memory.

    Bad arguments raise `ArgumentError`, a ValueError that starts with the argument's name.
    """

    stream: TrainedRun

    def __repr__(self) -> str:
        return f"<run {str(self.stream.workdir)!r}: {self.description}>"

    @property
    def description(self) -> str:
        """The data, the latent and the number of classes, in one line."""
        run, options = self.stream, self.stream.options
        seen = f"{'×'.join(map(str, run.image_shape))} images" if run.image_shape else "latents of one's own"
        grid = "×".join(map(str, run.latent_shape))
        classes = f", {len(run.class_names)} classes" if options.prior.conditional and run.class_names else ""
        return (
            f"{options.data.name if run.image_shape else options.prior.latents}, {seen}; "
            f"latent {options.latent.mode} {grid}, {run.num_codes} codes{classes}"
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by their numbers."""
        return self.stream.class_names

    @cached_property
    def codebook(self) -> np.ndarray:
        """The code of each index, `[K, D]` float32; `[depth, K, D]` where there are several codebooks."""
        return np.asarray(autoencoder.codes(self.stream.model, self.stream.variables_on_device))

    def encode(self, images: ArrayLike, *, value_range: ValueRange | None = None) -> Encoded:
        """Return the latents of images."""
        return joined(self.stream.encode(self._images(images, value_range)))

    def decode(
        self, indices: ArrayLike, gains: ArrayLike | None = None, residuals: ArrayLike | None = None
    ) -> np.ndarray:
        """Return the images `[N, H, W, C]` uint8 of codes, each times its gain, plus its residual.

        Args:
            indices: [N, h, w] integers, or [N, h, w, L] where a position has L codes.
            gains: [N, h, w] or, in g groups, [N, h, w, g]; None: 1 everywhere, the plain codes.
            residuals: [N, h, w, D], where the latent has them; None: none.
        """
        given = check_codes(self.stream, indices, gains, residuals)
        return joined(self.stream.decode_codes(*given)).images

    def decode_latents(self, latents: ArrayLike) -> np.ndarray:
        """Return the images `[N, H, W, C]` uint8 of what the decoder sees, latents `[N, h, w, D]`."""
        shape = self.stream.encoded_shapes["latents"]
        return np.concatenate(list(self.stream.decode(check_floats(latents, shape, "latents"))))

    def reconstruct(self, images: ArrayLike, *, value_range: ValueRange | None = None) -> Decoded:
        """Return images after encoder, latent and decoder."""
        return joined(self.stream.reconstruct(self._images(images, value_range)))

    def tokens(self, images: ArrayLike, *, value_range: ValueRange | None = None) -> np.ndarray:
        """Return what the prior models, tokens `[N, h, w, L + c]` int32: see `priors/tokens.py`."""
        return np.concatenate(list(self.stream.tokens(self._images(images, value_range))))

    def images_of(self, tokens: ArrayLike) -> Decoded:
        """Return the images of tokens `[N, h, w, L + c]`."""
        return joined(self.stream.images_of(self._check_tokens(tokens)))

    def transmit(self, images: ArrayLike, *, value_range: ValueRange | None = None) -> Decoded:
        """Return images after encoder, tokens and decoder: as `reconstruct`, but rounded to what the prior models."""
        return self.images_of(self.tokens(images, value_range=value_range))

    def interpolate(
        self, a: ArrayLike, b: ArrayLike, steps: int = 8, *, value_range: ValueRange | None = None
    ) -> np.ndarray:
        """Return images `[N, steps, H, W, C]` uint8 on the way from images `a` to images `b`, both reconstructed.

        The encoder's outputs are interpolated linearly, then quantized, so that the decoder sees latents of the kind
        that it was trained on.
        """
        if steps < 2:
            raise ArgumentError(f"steps={steps}", "must be at least 2, both ends")
        first, last = (self._images(x, value_range, name) for x, name in ((a, "a"), (b, "b")))
        check_same_length(a=first, b=last)
        latents = joined(self.stream.interpolate(first, last, steps)).latents
        images = np.concatenate(list(self.stream.decode(latents)))
        return images.reshape(len(first), steps, *images.shape[1:])

    def sample(
        self, labels: Labels = None, num_samples: int | None = None, *, seed: int = 0, **options: float
    ) -> Decoded:
        """Draw images: one for each label, or `num_samples` of one class or of none.

        Image n depends on `seed`, n and its label only.

        Args:
            labels: one for each image, or one for all.
            num_samples: how many to draw with one label (default: 1).
            seed: the same seed draws the same images.
            **options: those of `SamplingOptions`, such as temperature=0.9 or guidance=0.5.
        """
        numbers, drawing = self._labels(labels, num_samples), self._options(seed, options)
        return joined(self.stream.sample(numbers, seed=seed, options=drawing))

    def sample_latents(
        self, labels: Labels = None, num_samples: int | None = None, *, seed: int = 0, **options: float
    ) -> Latents:
        """Draw latents as `sample` does, and decode none: a run without an autoencoder can do it too."""
        numbers, drawing = self._labels(labels, num_samples), self._options(seed, options)
        return joined(self.stream.sample_latents(numbers, seed=seed, options=drawing))

    def complete(
        self,
        images: ArrayLike,
        mask: ArrayLike,
        num_samples: int = 1,
        *,
        labels: Labels = None,
        seed: int = 0,
        proposals: int | None = None,
        value_range: ValueRange | None = None,
        **options: float,
    ) -> Decoded:
        """Keep a part of the latent of each image, and draw the rest: `[N, num_samples, ...]`.

        The prior draws in raster order, given what is before. So this draws from the exact conditional distribution
        where all that is kept comes before all that is drawn, such as the top rows. For any other mask, choose:
        `proposals=1` draws each position given what is drawn or kept before it, whatever is kept behind it;
        `proposals=M` chooses from M such proposals by the probability of what is kept, which tends to the conditional
        distribution given all that is kept as M grows. `effective_proposals` says how many of M count: with few, the
        draws are hardly better than with one.

        Args:
            images: those to complete.
            mask: [h, w] bool, True at the positions of the latent that are kept.
            num_samples: S, draws of each image.
            labels: of the images.
            seed: the same seed draws the same images.
            proposals: M, see above; None for a mask that needs none.
            value_range: of float images.
            **options: those of `SamplingOptions`.

        Raises:
            ArgumentError: the mask keeps a position behind one that is drawn, and `proposals` is None.
        """
        kept = check_mask(mask, self.stream.latent_shape)
        if proposals is None and not is_prefix(kept):
            raise ArgumentError(
                "mask",
                "keeps positions behind some that are drawn, which the prior draws without regard to them: choose "
                "proposals=64, say, to draw given all that is kept, or proposals=1 to draw like that",
            )
        given = self._images(images, value_range)
        masks = _Masks(jnp.asarray(kept), jnp.asarray(kept))
        return self._redraw(given, masks, num_samples, labels, seed, 1 if proposals is None else proposals, options)

    def vary(
        self,
        images: ArrayLike,
        num_samples: int = 1,
        *,
        labels: Labels = None,
        seed: int = 0,
        proposals: int = 1,
        value_range: ValueRange | None = None,
        continuous_temperature: float = 1.0,
    ) -> Decoded:
        """Keep the codes of each image, and draw the continuous parts: `[N, num_samples, ...]`.

        With `proposals=1`, each is drawn given its own code and everything before it, with the codes forced: not from
        p(continuous parts | all codes), since the codes after it also say something about it. `proposals=M` tends to
        that distribution as M grows; see `complete`, also for the arguments.
        """
        if not self.stream.prior.heads:
            raise UserError(f"this run's prior {self.stream.draws_codes_only}, so there is nothing to vary")
        everywhere = jnp.ones(self.stream.latent_shape, bool)
        given, options = self._images(images, value_range), {"continuous_temperature": continuous_temperature}
        return self._redraw(given, _Masks(everywhere, ~everywhere), num_samples, labels, seed, proposals, options)

    def log_likelihood(
        self, images: ArrayLike, labels: Labels = None, *, value_range: ValueRange | None = None
    ) -> LogLikelihood:
        """Return the log-probability of each image's latent as transmitted, in nats, per position and per image."""
        tokens = self.tokens(images, value_range=value_range)
        return joined(self.stream.log_likelihood(tokens, self._labels(labels, len(tokens))))

    def compress(
        self,
        images: ArrayLike,
        labels: Labels = None,
        *,
        portable: bool = False,
        value_range: ValueRange | None = None,
    ) -> bytes:
        """Return images as the content of an .hvq file, which `decompress` returns as `transmit` does.

        Args:
            images: those to compress.
            labels: the classes that the prior is given and the file tells; None: none.
            portable: make a file that other machines and versions of JAX can read, in somewhat more time.
            value_range: of float images.
        """
        numbers = None if labels is None else self._labels(labels, len(self._images(images, value_range)))
        return compress(self.stream, images, numbers, portable=portable, value_range=value_range)

    def decompress(self, data: bytes) -> Decompressed:
        """Return the images of the content of an .hvq file; raise UserError if this run cannot read it, here."""
        return decompress(self.stream, data)

    def evaluate(
        self,
        images: ArrayLike,
        labels: Labels = None,
        *,
        coded: bool = False,
        portable: bool = False,
        value_range: ValueRange | None = None,
    ) -> dict[str, float]:
        """Return the metrics that `summary.json` has of the test split.

        Those of the autoencoder: mse on [-1, 1], psnr in dB, ssim, perplexity, codes_used and others. If there is a
        prior, also nats_per_latent, bits_per_image, bits_per_pixel and their parts, given the labels.

        Args:
            images: those to evaluate.
            labels: the classes that the prior is given.
            coded: write the images as an .hvq file, read it, and add what `evaluate_coded` returns: coded_bytes,
                coded_bits_per_image, coded_mse, coded_psnr, coded_ssim and others.
            portable: write a portable file.
            value_range: of float images.
        """
        if portable and not coded:
            raise ArgumentError("portable=True", "is for coded=True: add that, or omit this")
        given = self._images(images, value_range)
        numbers = self._labels(labels, len(given)) if self.stream.has_prior else None
        metrics = evaluate(self.stream, given, numbers)
        if not coded:
            return metrics
        told = None if labels is None else numbers
        return {**metrics, **evaluate_coded(self.stream, given, told, portable=portable)}

    def _images(self, images: ArrayLike, value_range: ValueRange | None, name: str = "images") -> np.ndarray:
        return check_images(images, self.stream.model.image_shape, value_range, name)

    def _check_tokens(self, tokens: ArrayLike) -> np.ndarray:
        run = self.stream
        given = check_integers(tokens, (*run.latent_shape, run.prior.num_channels), None, "tokens")
        check_integers(given[..., 0], run.latent_shape, run.num_codes, "tokens")
        return given

    def _labels(self, labels: Labels, count: int | None = None) -> np.ndarray:
        """Return one number for each image; an ArgumentError names what the prior cannot be told or has to be."""
        run = self.stream
        if not run.options.prior.conditional and labels is not None:
            raise ArgumentError("labels", "the prior of this run is not conditional on the class: omit them")
        numbers = class_numbers(labels, run.class_names)
        if numbers.ndim and count not in (None, len(numbers)):
            raise ArgumentError("labels", f"there are {len(numbers)}, but {count} images")
        if count is not None and count < 1:
            raise ArgumentError(f"num_samples={count}", "must be at least 1")
        if run.prior.num_classes and not run.options.prior.label_dropout and (numbers == NO_CLASS).any():
            raise ArgumentError("labels", "this run's prior always saw the class in training: give a label")
        return numbers if numbers.ndim else np.full(1 if count is None else count, numbers)

    def _options(self, seed: int, options: dict[str, Any]) -> SamplingOptions:
        if not 0 <= seed < 2**32:
            raise ArgumentError(f"seed={seed}", f"must be from 0 to {2**32 - 1}")
        return SamplingOptions(**options)

    def _redraw(
        self,
        images: np.ndarray,
        masks: "_Masks",
        num_samples: int,
        labels: Labels,
        seed: int,
        proposals: int,
        options: dict[str, Any],
    ) -> Decoded:
        """Return S draws of each of N images, `[N, S, ...]`."""
        check_proposals(proposals)
        drawing, numbers = self._options(seed, options), self._labels(labels, len(images))
        if num_samples < 1:
            raise ArgumentError(f"num_samples={num_samples}", "must be at least 1")

        def repeated() -> Iterator[np.ndarray]:
            for tokens in self.stream.tokens(images):
                yield from (latent for latent in tokens for _ in range(num_samples))

        drawn = joined(
            self.stream.sample(
                np.repeat(numbers, num_samples),
                seed=seed,
                options=drawing,
                tokens=repeated(),
                keep=lambda tokens: Kept(tokens, masks.codes, masks.continuous),
                proposals=proposals,
            )
        )
        each = {name: x for name, x in vars(drawn).items() if x is not None}
        return Decoded(**{name: x.reshape(len(images), num_samples, *x.shape[1:]) for name, x in each.items()})


class _Masks(NamedTuple):
    """Where the codes are kept and where the continuous parts are."""

    codes: jax.Array  # [h, w] bool
    continuous: jax.Array  # [h, w] bool
