"""A trained run in use, in pieces: encode, decode, reconstruct and draw any number of images in constant memory.

Each method takes an iterable, or arrays, and yields the results of at most `BATCH` images at a time, as numpy arrays.
`loaded.py` has the same methods for arrays that fit into memory.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax.devices.side_by_side import side_by_side
from hvq_jax.errors import ArgumentError
from hvq_jax.priors.importance import check_proposals
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.sampling import DEFAULT_OPTIONS, Kept, SamplingOptions
from hvq_jax.priors.tokens import check_residuals
from hvq_jax.runs import programs
from hvq_jax.runs.batching import BATCH, one_ahead, padded, padded_size, stacked, stacks
from hvq_jax.runs.programs import Arrays
from hvq_jax.runs.results import Decoded, Encoded, Latents, LogLikelihood
from hvq_jax.runs.stored import StoredRun

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainedRun(StoredRun):
    """A trained run, in pieces.

    Images `[H, W, C]` are uint8, or float in [-1, 1].
    """

    # Fewer images than `BATCH` are padded to a power of two times this: with 1, programs of up to 7 sizes are compiled.
    smallest_batch: int = BATCH

    def encode(self, images: Iterable[np.ndarray]) -> Iterator[Encoded]:
        """Yield the latents of images."""
        encode = self.compiled(programs.encode, model=self.model)
        return self._in_batches(images, lambda batch: encode(batch, self.variables_on_device), Encoded)

    def reconstruct(self, images: Iterable[np.ndarray]) -> Iterator[Decoded]:
        """Yield images after encoder, latent and decoder."""
        encode = self.compiled(programs.encode, model=self.model)
        decode = self.compiled(programs.decode, model=self.model)

        def through(batch: np.ndarray) -> Arrays:
            found = encode(batch, self.variables_on_device)
            seen = {name: found[name] for name in ("indices", "gains", "latents")}
            return {**seen, "images": decode(found["latents"], self.variables_on_device)}

        return self._in_batches(images, through, Decoded)

    def decode(self, latents: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield uint8 images `[n, H, W, C]` of what the decoder sees, latents `[h, w, D]` float32."""
        decode = self.compiled(programs.decode, model=self.model)
        return self._in_batches(
            latents, lambda batch: {"images": decode(batch, self.variables_on_device)}, lambda images: images
        )

    def decode_codes(
        self, indices: np.ndarray, gains: np.ndarray, residuals: np.ndarray | None = None
    ) -> Iterator[Decoded]:
        """Yield the images of codes, each times its gain, plus its residual; shapes and dtypes are those of `Encoded`.

        They differ from those of `Encoded.latents` by rounding where a gain or a residual was rounded to float32.
        """
        decode = self.compiled(programs.decode_codes, model=self.model)
        others = zip(stacks(gains), itertools.repeat(None) if residuals is None else stacks(residuals), strict=False)

        def through(batch: np.ndarray) -> Arrays:
            scales, rest = (None if x is None else padded(x, len(batch)) for x in next(others))
            return decode(batch, scales, rest, self.variables_on_device)

        return self._in_batches(indices, through, Decoded)

    def tokens(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield tokens `[n, h, w, L + c]` of images.

        Gains are rounded to their bins and residuals to their steps. Raises UserError before there is a prior, and
        ArgumentError for residuals of more steps than tokens hold.
        """

        def checked(tokens: np.ndarray) -> np.ndarray:
            check_residuals(tokens, self.tables)
            return tokens

        return self._in_batches(images, lambda batch: {"tokens": self._tokens(batch)}, checked)

    def images_of(self, tokens: Iterable[np.ndarray]) -> Iterator[Decoded]:
        """Yield the images of tokens `[h, w, L + c]`."""
        return self._in_batches(tokens, self._images_of, Decoded)

    def transmit(self, images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Decoded]]:
        """Yield tokens `[n, h, w, L + c]` of images, as `tokens` does, and the images decoded from them."""

        def through(batch: np.ndarray) -> Arrays:
            tokens = self._tokens(batch)
            return {"tokens": tokens, **self._images_of(tokens)}

        def checked(tokens: np.ndarray, **decoded: np.ndarray) -> tuple[np.ndarray, Decoded]:
            check_residuals(tokens, self.tables)
            return tokens, Decoded(**decoded)

        return self._in_batches(images, through, checked)

    def log_likelihood(self, tokens: Iterable[np.ndarray], labels: np.ndarray) -> Iterator[LogLikelihood]:
        """Yield the log-probabilities of tokens `[h, w, L + c]`, of classes [N] int32, -1 for no class."""
        score = self.compiled(programs.score, prior=self.prior)
        given = iter(stacks(labels))

        def scored(batch: np.ndarray) -> Arrays:
            numbers = padded(next(given), len(batch))
            return score(batch, numbers, self.prior_params_on_device, self.tables)

        return self._in_batches(tokens, scored, LogLikelihood)

    def interpolate(self, first: np.ndarray, last: np.ndarray, steps: int) -> Iterator[Encoded]:
        """Yield the latents of `steps` images on the way from each image of `first` to that of `last`, `[N, H, W, C]`.

        Encoder outputs are interpolated linearly, both ends included, and then quantized.
        """
        encode = self.compiled(programs.encode_outputs, model=self.model)
        quantize = self.compiled(programs.quantize_between, model=self.model)

        def outputs(images: np.ndarray) -> np.ndarray:
            found = self._in_batches(images, lambda x: {"z_e": encode(x, self.variables_on_device)}, lambda z_e: z_e)
            return np.repeat(np.concatenate(list(found)), steps, axis=0)

        shares_of_last = np.tile(np.linspace(0, 1, steps, dtype=np.float32), len(first))
        others = zip(stacks(outputs(last)), stacks(shares_of_last), strict=True)

        def between(batch: np.ndarray) -> Arrays:
            ends, shares = (padded(x, len(batch)) for x in next(others))
            return quantize(batch, ends, shares, self.variables_on_device)

        return self._in_batches(outputs(first), between, Encoded)

    def sample(
        self,
        labels: np.ndarray,
        *,
        seed: int = 0,
        options: SamplingOptions = DEFAULT_OPTIONS,
        tokens: Iterable[np.ndarray] | None = None,
        keep: Callable[[jax.Array], Kept] | None = None,
        proposals: int = 1,
    ) -> Iterator[Decoded]:
        """Draw one image per label.

        Image n depends on `seed`, n and its label only, and on its tokens where some of them are kept. In batches of
        another size it may differ where two codes tie up to the rounding of the network's features.

        Args:
            labels: [N] int32, -1 for no class; ignored by an unconditional prior.
            seed: the same seed draws the same images.
            options: how to draw from the prior.
            tokens: N latents [h, w, L + c], of which `keep` selects the parts to keep instead of drawing.
            keep: a function of tokens [B, h, w, L + c], such as `all_codes`.
            proposals: M. With 1, a position is drawn given what is drawn or kept before it. With more, an image is
                chosen from M such proposals by the probability of what is kept: see `priors/importance.py`.

        Raises:
            ArgumentError: an option or a label is out of range.
        """
        drawn = self._draw(labels, seed, options, tokens, keep, proposals)

        def with_images(batch: Arrays) -> Arrays:
            return {**self._images_of(batch.pop("tokens")), **batch}

        return one_ahead(((with_images(batch), count) for batch, count in drawn), Decoded)

    def sample_latents(
        self, labels: np.ndarray, *, seed: int = 0, options: SamplingOptions = DEFAULT_OPTIONS
    ) -> Iterator[Latents]:
        """Draw one latent per label, as `sample` does, and decode none: a run without an autoencoder can do it too."""
        drawn = self._draw(labels, seed, options, None, None, 1)
        split = self.compiled(programs.split_tokens, groups=self.options.latent.projection_groups)
        return one_ahead(((split(batch["tokens"], self.tables), count) for batch, count in drawn), Latents)

    def _draw(
        self,
        labels: np.ndarray,
        seed: int,
        options: SamplingOptions,
        tokens: Iterable[np.ndarray] | None,
        keep: Callable[[jax.Array], Kept] | None,
        proposals: int,
    ) -> Iterator[tuple[Arrays, int]]:
        """Check the arguments of `sample`; return the results of `programs.draw` and their number without padding."""
        self._check_drawing(labels, options)
        check_proposals(proposals)
        program = self.compiled(programs.draw, prior=self.prior, grid=self.latent_shape, proposals=proposals)
        controls = options.controls()
        params, tables = self.prior_params_on_device, self.tables  # first, to raise a clear error if there is no prior
        key, most = jax.random.key(seed), max(1, BATCH // proposals)
        given = None if tokens is None else stacks(tokens, most)

        def draw(first: int, labels: np.ndarray, known: np.ndarray | None, part: slice) -> Arrays:
            kept = None if known is None or keep is None else keep(jnp.asarray(known[part]))
            return program(labels[part], key, first + part.start, params, tables, kept, controls)

        def dispatched() -> Iterator[tuple[Arrays, int]]:
            for first in range(0, len(labels), most):
                piece = labels[first : first + most].astype(np.int32)
                size = padded_size(len(piece), min(self.smallest_batch, most), most)
                known = None if given is None else padded(next(given), size)
                call = partial(draw, first, padded(piece, size), known)
                yield stacked(side_by_side(call, size, rows=proposals)), len(piece)

        return dispatched()

    def _check_drawing(self, labels: np.ndarray, options: SamplingOptions) -> None:
        """Raise ArgumentError for a label that is out of range, or an option that this run's prior cannot have."""
        options.check(self.prior.num_classes)
        wrong = labels[(labels < NO_CLASS) | (labels >= len(self.class_names))]
        if self.prior.num_classes and len(wrong):
            raise ArgumentError(
                f"label={wrong[0]}",
                f"is out of range: the classes are 0 to {len(self.class_names) - 1} ({', '.join(self.class_names)})",
            )
        if options.guidance and not self.options.prior.label_dropout:
            raise ArgumentError(
                f"guidance={options.guidance}",
                "this run's prior always saw the class in training (prior.label_dropout=0) and cannot do without it",
            )
        if options.guidance and (labels == NO_CLASS).any():
            raise ArgumentError(f"guidance={options.guidance}", "there is no class to guide to: give a label")
        if options.continuous_temperature != 1 and not self.prior.heads:
            raise ArgumentError(
                f"continuous_temperature={options.continuous_temperature}", f"this run's prior {self.draws_codes_only}"
            )

    @property
    def draws_codes_only(self) -> str:
        """The reason, in words, why a prior without heads draws only codes."""
        return f"draws codes only (latent {self.options.latent.mode}, {self.options.prior.num_bins} bins)"

    def _tokens(self, images: np.ndarray) -> jax.Array:
        return self.compiled(programs.tokenize, model=self.model)(images, self.variables_on_device, self.tables)

    def _images_of(self, tokens: np.ndarray | jax.Array) -> Arrays:
        decode = self.compiled(programs.decode_tokens, model=self.model)
        return decode(tokens, self.variables_on_device, self.tables)

    def _in_batches(
        self, items: Iterable[np.ndarray], call: Callable[[np.ndarray], Arrays], make: Callable[..., T]
    ) -> Iterator[T]:
        """Yield `make` of the arrays that `call` returns for each batch of items."""
        batches = ((call(padded(x, padded_size(len(x), self.smallest_batch))), len(x)) for x in stacks(items))
        return one_ahead(batches, make)
