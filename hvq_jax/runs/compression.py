"""Images as .hvq files, through a trained run: its autoencoder's latents, coded under its prior.

    data = compress(run, images)
    same = decompress(run, data).images

The images that come back are those of `TrainedRun.transmit`. Every block is decoded, and compared with what it was made
from, before it is handed out.
"""

import dataclasses
import io
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from hvq_jax.codec import file_format
from hvq_jax.codec.file_format import Header, Reader, Writer, batch_for
from hvq_jax.codec.latent_codec import Block, LatentCodec
from hvq_jax.codec.range_coder import DamagedStreamError
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.runs.array_arguments import check_images
from hvq_jax.runs.batching import joined
from hvq_jax.runs.codec_fingerprint import PARTS, environment_digests, run_fingerprint
from hvq_jax.runs.results import Decoded
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.value_range import ValueRange

NOT_PORTABLE = bytes(file_format.ENVIRONMENT_BYTES)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Decompressed(Decoded):
    """Images with the latents and tokens that they were decoded from, and their labels."""

    labels: np.ndarray = dataclasses.field(kw_only=True)  # [N] int32, -1 for no class
    tokens: np.ndarray = dataclasses.field(kw_only=True)  # [N, h, w, L + c] int32


def compress(
    run: TrainedRun,
    images: ArrayLike,
    labels: np.ndarray | None = None,
    *,
    portable: bool = False,
    value_range: ValueRange | None = None,
) -> bytes:
    """Return `images` as the content of an .hvq file.

    Args:
        run: a run with an autoencoder and a prior.
        images: [N, H, W, C], uint8 or float; see `check_images`.
        labels: [N] int, the classes that the prior is given and the file tells; None: no class.
        portable: make a file that any machine and version of JAX can read, in somewhat more time.
        value_range: of float images.

    Raises:
        ArgumentError: there is no image, or the images or labels do not fit the run.
    """
    checked = check_images(images, run.model.image_shape, value_range)
    codec = run.made_once(RunCodec, with_labels=labels is not None, portable=portable)
    given = np.full(len(checked), NO_CLASS, np.int32) if labels is None else np.asarray(labels)
    return b"".join(codec.compressed(codec.tokens_of(checked), given))


def decompress(run: TrainedRun, data: bytes) -> Decompressed:
    """Return what the content `data` of an .hvq file stands for.

    Raises:
        UserError: the data are damaged, of another run, or, unless portable, of another environment.
    """
    return joined(decompressed(run, io.BytesIO(data), len(data)))


def decompressed(run: TrainedRun, file: BinaryIO, size: int) -> Iterator[Decompressed]:
    """Yield the images of a file of `size` bytes, block by block; raise as `decompress` does."""
    reader = Reader(file, size)
    header = reader.header
    check_header(run, header)
    codec = run.made_once(RunCodec, with_labels=header.with_labels, portable=header.portable)
    for number, count in enumerate(header.counts()):
        block, stored = reader.block(has_digits=codec.codec.has_residuals)
        try:
            tokens, labels = codec.codec.decode(block, count, header.batch)
            if not reader.check(block, stored, tokens, labels):
                raise DamagedStreamError("its checksum is wrong")
        except DamagedStreamError as error:
            raise UserError(f"is damaged in its block {number + 1} of {len(header.counts())}: {error}") from None
        if number + 1 == len(header.counts()):
            reader.check_end()
        yield Decompressed(**vars(codec.images_of(tokens)), labels=labels, tokens=tokens)


def check_header(run: TrainedRun, header: Header) -> None:
    """Raise UserError, naming what differs, if the run or this environment cannot read a file with this header."""
    if header.fingerprint != run_fingerprint(run):
        raise UserError(f"is of another run than {run.workdir}, or of other checkpoints of it")
    if header.portable:
        return
    here = environment_digests()
    differing = [part for part, there, now in zip(PARTS, header.environment, here, strict=True) if there != now]
    if differing:
        raise UserError(
            f"was written in another environment ({', '.join(differing)} differ), where the prior's probabilities are "
            "rounded differently: read it there, or write it with --portable"
        )


@dataclasses.dataclass(frozen=True)
class RunCodec:
    """The codec of a run's latents, compiled once."""

    run: TrainedRun
    with_labels: bool = False
    portable: bool = False

    def __post_init__(self) -> None:
        """Raise ArgumentError for a prior that needs labels, or that has no classes."""
        num_classes = self.run.prior.num_classes
        if self.with_labels and not num_classes:
            raise ArgumentError("labels", "this run's prior has no classes: omit them")
        if not self.with_labels and num_classes and not self.run.options.prior.label_dropout:
            raise ArgumentError(
                "labels", "are needed: this run's prior always saw the class in training (prior.label_dropout=0)"
            )

    @cached_property
    def codec(self) -> LatentCodec:
        """The codec of tokens."""
        return LatentCodec(
            self.run.prior,
            self.run.prior_params,
            *self.run.latent_shape,
            has_continuous=self.run.tables.has_continuous,
            with_labels=self.with_labels,
            portable=self.portable,
        )

    def tokens_of(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the tokens `[n, h, w, L + c]` of uint8 images `[H, W, C]`, in pieces."""
        return self.run.tokens(images)

    def images_of(self, tokens: np.ndarray) -> Decoded:
        """Return the images of tokens `[n, h, w, L + c]`."""
        return joined(self.run.images_of(tokens))

    def header(self, count: int) -> Header:
        """Return the header of a file of `count` images."""
        batch = batch_for(count, self.codec.height * self.codec.width)
        environment = NOT_PORTABLE if self.portable else environment_digests()
        return Header(count, batch, self.portable, self.with_labels, run_fingerprint(self.run), environment)

    def compressed(self, pieces: Iterable[np.ndarray], labels: np.ndarray, *, bare: bool = False) -> Iterator[bytes]:
        """Yield a file in parts, the header and then each block.

        Args:
            pieces: the tokens, `[n, h, w, L + c]` each.
            labels: [N] int32, of all of them.
            bare: leave out all but the streams; such a file can only be measured.

        Raises:
            ArgumentError: a label is out of range.
            UserError: a block does not decode to what it was made from.
        """
        self._check_labels(labels)
        header = self.header(len(labels))
        writer = Writer(header)
        if not bare:
            yield writer.header
        start = 0
        for tokens in _regrouped(pieces, header.batch):
            block = self.verified(tokens, labels[start : start + len(tokens)], header.batch)
            whole = writer.block(block, tokens, labels[start : start + len(tokens)])
            start += len(tokens)
            yield block.stream if bare else whole

    def verified(self, tokens: np.ndarray, labels: np.ndarray, batch: int) -> Block:
        """Return the block of latents, once it has been decoded; raise UserError if it does not come back."""
        block = self.codec.encode(tokens, labels, batch)
        try:
            decoded, decoded_labels = self.codec.decode(block, len(tokens), batch)
        except DamagedStreamError:
            decoded, decoded_labels = tokens[:0], labels[:0]
        if not (np.array_equal(decoded, tokens) and (not self.with_labels or np.array_equal(decoded_labels, labels))):
            raise UserError(
                "a block of images did not decode to what it was made from, so nothing is written: on this machine the "
                "same program does not give the same result twice; try --portable"
            )
        return block

    def _check_labels(self, labels: np.ndarray) -> None:
        wrong = labels[(labels < NO_CLASS) | (labels >= max(self.run.prior.num_classes, 1))]
        if self.with_labels and len(wrong):
            raise ArgumentError(f"labels={wrong[0]}", f"must be from {NO_CLASS} to {self.run.prior.num_classes - 1}")


def _regrouped(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the rows of `pieces` in pieces of `size`, the last one excepted."""
    waiting: list[np.ndarray] = []
    for piece in pieces:
        waiting.append(piece)
        while sum(map(len, waiting)) >= size:
            whole = np.concatenate(waiting)
            yield whole[:size]
            waiting = [whole[size:]]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


def file_size(file: BinaryIO) -> int:
    """Return the number of bytes of an open file."""
    return os.fstat(file.fileno()).st_size
