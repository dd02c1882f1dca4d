"""A trained run in use: reconstruct images and draw new ones, or latents alone where it has no autoencoder."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import full_path
from hvq_jax.images import to_float, to_uint8
from hvq_jax.latents import PROJECTION, Z_E, find_latent
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.sampling import DEFAULT_OPTIONS, Kept, SamplingOptions, sample
from hvq_jax.priors.tokens import Tables, check_residuals, from_tokens, to_parts, to_tokens
from hvq_jax.runs.latent_data import encode_parts
from hvq_jax.runs.latent_files import check_latents, read_tables
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.workdir import config_named, load_options, read_description
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.loop import checkpoint_folder, initial_state
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import TrainState

BATCH = 64  # images per compiled call; smaller requests are padded to it, so that each compiles once


@struct.dataclass
class Decoded:
    """Images with the latents they were decoded from; numpy arrays, None if the run has no autoencoder."""

    indices: Any  # [N, h, w] int32, or [N, h, w, L] where a position has L codes
    images: Any = None  # [N, H, W, C] uint8
    gains: Any = None  # [N, h, w] or [N, h, w, g] float32; 1 where the decoder did not see a multiple of the code
    latents: Any = None  # [N, h, w, D] float32, what the decoder saw
    # Of a run without an autoencoder, where its latents have them: [N, h, w, g] and [N, h, w, D] float32.
    lengths: Any = None
    residuals: Any = None


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The best autoencoder of a workdir and, if it has been trained, the best prior; or a prior alone."""

    workdir: Path
    options: RunOptions
    image_shape: tuple[int, int, int] | None  # None: it has no autoencoder
    own_latent_shape: tuple[int, int] | None  # of a prior alone
    class_names: tuple[str, ...]
    # Best states that are in memory already; None: read from the checkpoints when first needed.
    given_autoencoder: TrainState | None = dataclasses.field(default=None, repr=False, compare=False)
    given_prior: TrainState | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, workdir: str | Path) -> "TrainedRun":
        """Open the run in `workdir`; raise UserError if there is none. Checkpoints are read when first needed."""
        workdir = full_path(workdir)
        options, dataset = load_options(workdir), read_description(workdir)
        class_names = tuple(dataset["class_names"])
        if "latent_shape" in dataset:
            height, width = dataset["latent_shape"]
            return cls(workdir, options, None, (height, width), class_names)
        height, width, channels = dataset["image_shape"]
        return cls(workdir, options, (height, width, channels), None, class_names)

    def with_prior(self, state: TrainState) -> "TrainedRun":
        """Return the same run with this prior; an autoencoder that has been read is kept."""
        autoencoder = self._autoencoder_state if self.image_shape else None
        return dataclasses.replace(self, given_autoencoder=autoencoder, given_prior=state)

    @cached_property
    def model(self) -> Autoencoder:
        """The autoencoder; UserError if there is none."""
        if self.image_shape is None:
            raise UserError(f"{self.workdir} has a prior over your own latents and no autoencoder, so no images")
        with config_named(self.workdir):
            return self.options.autoencoder_model(self.image_shape)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """The sides (h, w) of the latents."""
        return self.own_latent_shape or self.model.latent_shape

    @cached_property
    def _autoencoder_state(self) -> TrainState:
        stage = AutoencoderStage(self.model, np.zeros((1, *self.model.image_shape), np.uint8))
        return self.given_autoencoder or self._best(stage)

    @property
    def autoencoder_step(self) -> int:
        """The training step of the best autoencoder; 0 without one."""
        return int(self._autoencoder_state.step) if self.image_shape else 0

    @property
    def variables(self) -> Variables:
        """The autoencoder's arrays, from its best checkpoint."""
        state = self._autoencoder_state
        return Variables(state.eval_params, state.model_state)

    @property
    def num_pixels(self) -> int:
        """H·W, 0 without an autoencoder."""
        return math.prod(self.image_shape[:2]) if self.image_shape else 0

    @cached_property
    def prior(self) -> Prior:
        """The prior, as a module without parameters."""
        return self.options.prior_model(num_classes=len(self.class_names), grid=self.latent_shape)

    def prior_stage(self, tables: Tables | None = None) -> PriorStage:
        """Return the second stage; without `tables` it can be initialised, not trained."""
        has_continuous = None if tables is None else np.asarray(tables.has_continuous)
        dropout = self.options.prior.label_dropout
        return PriorStage(self.prior, self.latent_shape, self.num_pixels, has_continuous, dropout)

    @cached_property
    def _prior_state(self) -> TrainState:
        if self.given_prior is not None:
            return self.given_prior
        stage = self.prior_stage()
        if not checkpoint_folder(stage, self.workdir).is_dir():
            raise UserError(
                f"{self.workdir} has no prior to sample from yet: run "
                f"python train.py --workdir={self.workdir} --config.stage=prior"
            )
        if self.image_shape:
            check_latents(self.workdir, self.autoencoder_step)
        return self._best(stage)

    @property
    def prior_params(self) -> Any:
        """The prior's parameters, from its best checkpoint; UserError before there is one."""
        return self._prior_state.eval_params

    @property
    def steps(self) -> dict[str, int]:
        """The training steps of the best prior and of the autoencoder whose latents it models."""
        return {"step": int(self._prior_state.step), "autoencoder_step": self.autoencoder_step}

    @cached_property
    def tables(self) -> Tables:
        """The tables that turn tokens into latents; UserError before there is a prior."""
        index_shape = self.options.quantizer.index_shape
        return read_tables(self.workdir, self.options.latent, self.options.prior, self.prior.num_codes, index_shape)

    def _best(self, stage: Stage) -> TrainState:
        create = partial(initial_state, stage, getattr(self.options, stage.name), 1, 0)
        folder = checkpoint_folder(stage, self.workdir)
        if not folder.is_dir():
            raise UserError(f"no checkpoint of the {stage.name} in {self.workdir}: train it first")
        checkpoints = Checkpoints(folder, objective=stage.objective, read_only=True)
        try:
            return checkpoints.restore_best(jax.eval_shape(create))
        finally:
            checkpoints.close()

    def continuous_part_note(self) -> str:
        """Return one line on the continuous part of a drawn latent, "" where there is none."""
        options, row = self.options.prior, find_latent(self.options.latent.mode)
        notes = []
        for part, codes in ((row.frequent, "frequent"), (row.rare, "rare")):
            where = f"positions of {codes} codes" if row.masked else "positions"
            if part == Z_E:
                notes.append(f"{where} add a residual, drawn in steps of {options.residual_step}")
            elif part == PROJECTION and options.num_bins == 1:
                mean = "their code's mean gain" if options.bins_per_code else "the mean length of all"
                notes.append(f"{where} use {mean}, which the prior does not draw")
            elif part == PROJECTION:
                notes.append(f"{where} use one of {options.num_bins} gains, drawn with the codes")
        return "; ".join(notes if row.masked else notes[:1])

    def sample(
        self,
        labels: np.ndarray,
        *,
        seed: int = 0,
        options: SamplingOptions = DEFAULT_OPTIONS,
        tokens: Iterable[np.ndarray] | None = None,
        keep: Callable[[jax.Array], Kept] | None = None,
    ) -> Iterator[Decoded]:
        """Draw one image per label, in pieces of at most `BATCH`.

        Image n depends on `seed`, n and its label only, and on its tokens where some of them are kept.

        Args:
            labels: [N] int32, -1 for no class; ignored by an unconditional prior.
            seed: the same seed draws the same images.
            options: how to draw from the prior.
            tokens: N latents [h, w, L + c], of which `keep` selects the parts to keep instead of drawing.
            keep: a function of tokens [B, h, w, L + c], such as `all_codes`.

        Raises:
            ArgumentError: an option or a label is out of range.
        """
        options.check(self.prior.num_classes)
        wrong = labels[(labels < NO_CLASS) | (labels >= len(self.class_names))]
        if self.prior.num_classes and len(wrong):
            raise ArgumentError(
                f"label={wrong[0]}",
                f"is out of range: the classes are 0 to {len(self.class_names) - 1} ({', '.join(self.class_names)})",
            )
        self._check_options(options, labels)
        draw = jax.jit(partial(self._draw, options=options, keep=keep))
        prior_params = self.prior_params  # first, because it raises a clear error if there is no prior yet
        variables = self.variables if self.image_shape else None
        key = jax.random.key(seed)
        pieces = None if tokens is None else _pieces(tokens)

        def dispatched() -> Iterator[tuple[Decoded, int]]:
            for start in range(0, len(labels), BATCH):
                piece = labels[start : start + BATCH]
                given = None if pieces is None else _padded(next(pieces))
                padded = _padded(piece.astype(np.int32))
                yield draw(variables, prior_params, self.tables, key, padded, start, given), len(piece)

        return _one_ahead(dispatched())

    @property
    def draws_codes_only(self) -> str:
        """The reason, in words, why a prior without heads draws only codes."""
        return f"draws codes only (latent {self.options.latent.mode}, {self.options.prior.num_bins} bins)"

    def _check_options(self, options: SamplingOptions, labels: np.ndarray) -> None:
        """Raise ArgumentError for an option that does not apply to this run's prior."""
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

    def _draw(
        self,
        variables: Variables | None,
        prior_params: Any,
        tables: Tables,
        key: jax.Array,
        labels: jax.Array,
        start: jax.Array,
        given: jax.Array | None,
        *,
        options: SamplingOptions,
        keep: Callable[[jax.Array], Kept] | None,
    ) -> Decoded:
        condition = labels if self.prior.num_classes else None
        keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(BATCH, dtype=jnp.int32))
        drawn = sample(
            self.prior,
            prior_params,
            condition,
            keys,
            *self.latent_shape,
            has_continuous=tables.has_continuous,
            options=options,
            kept=None if given is None or keep is None else keep(given),
        )
        if variables is None:
            parts = to_parts(drawn.tokens, tables, self.options.latent.projection_groups)
            return Decoded(parts.indices, lengths=parts.lengths, residuals=parts.residuals)
        return self._decode(variables, tables, drawn.tokens)

    def _decode(self, variables: Variables, tables: Tables, tokens: jax.Array) -> Decoded:
        vectors, groups = partial(autoencoder.vectors, self.model, variables), self.options.latent.projection_groups
        z_bar, gains = from_tokens(tokens, tables, vectors, groups)
        images = to_uint8(autoencoder.decode(self.model, variables, z_bar))
        return Decoded(tables.indices(tokens), images, gains, z_bar)

    def transmit(self, images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Decoded]]:
        """Yield tokens `[n, h, w, L + c]` of uint8 images `[H, W, C]`, and the images decoded from them, in pieces.

        Unlike in `reconstruct`, gains are rounded to their bins and residuals to their steps. Raises UserError before
        there is a prior, and ArgumentError for residuals of more steps than tokens hold.
        """

        @jax.jit
        def through(variables: Variables, tables: Tables, images: jax.Array) -> tuple[jax.Array, Decoded]:
            tokens = to_tokens(encode_parts(self.model, variables, images), tables)
            return tokens, self._decode(variables, tables, tokens)

        encoded = ((through(self.variables, self.tables, _padded(x)), len(x)) for x in _pieces(images))
        for tokens, decoded in _one_ahead(encoded):
            check_residuals(tokens, self.tables)
            yield tokens, decoded

    def reconstruct(self, images: Iterable[np.ndarray]) -> Iterator[Decoded]:
        """Yield uint8 images `[H, W, C]` after encoder, latent and decoder, in pieces of at most `BATCH`."""

        @jax.jit
        def through(variables: Variables, images: jax.Array) -> Decoded:
            latent = autoencoder.encode_to_latent(self.model, variables, to_float(images))
            decoded = to_uint8(autoencoder.decode(self.model, variables, latent.z_bar))
            return Decoded(latent.indices, decoded, latent.gain_seen, latent.z_bar)

        return _one_ahead((through(self.variables, _padded(piece)), len(piece)) for piece in _pieces(images))


def _pieces(items: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield stacks of at most `BATCH` items."""
    items = iter(items)
    while piece := list(itertools.islice(items, BATCH)):
        yield np.stack(piece)


def _padded(piece: np.ndarray) -> np.ndarray:
    """Return `[BATCH, ...]`, padded with zeros."""
    return np.pad(piece, ((0, BATCH - len(piece)), *[(0, 0)] * (piece.ndim - 1)))


def _one_ahead(dispatched: Iterable[tuple[Any, int]]) -> Iterator[Any]:
    """Yield each piece without its padding, as numpy arrays, while the device works on the next one."""
    before: tuple[Any, int] | None = None
    for current in itertools.chain(dispatched, [None]):
        if before is not None:
            drawn, count = before
            yield jax.tree.map(lambda x, count=count: np.asarray(x)[:count], drawn)
        before = current
