"""A trained run, ready to use: reconstruct images, draw new ones, or latents alone where it has no autoencoder."""

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
from ml_collections import ConfigDict

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.errors import UserError
from hvq_jax.images import to_float, to_uint8
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.sampling import DEFAULT_OPTIONS, Kept, SamplingOptions, sample
from hvq_jax.priors.tokens import Tables, continuous_parts, from_tokens, to_tokens
from hvq_jax.training.autoencoder_stage import autoencoder_stage
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.config import autoencoder_of, fit_options_of, prior_of
from hvq_jax.training.latent_data import check_latents, encode_whole, read_tables
from hvq_jax.training.loop import Stage, checkpoint_folder, initial_state
from hvq_jax.training.prior_stage import prior_stage
from hvq_jax.training.state import TrainState
from hvq_jax.training.workdir import load_config, read_json

DATASET = "dataset.json"
BATCH = 64  # images a compiled call; smaller requests are padded to it, so that each compiles once


@struct.dataclass
class Drawn:
    """Images with the latents they were decoded from; numpy arrays, None where a run has no autoencoder."""

    indices: Any  # [N, h, w] int32, [N, h, w, depth] of residual quantization
    images: Any = None  # [N, H, W, C] uint8
    gains: Any = None  # [N, h, w] or [N, h, w, g] float32; 1 where the decoder did not see a multiple of the code
    latents: Any = None  # [N, h, w, D] float32, what the decoder saw
    continuous: Any = None  # [N, h, w, c] float32, of a run without an autoencoder: signed lengths, or residuals


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The best autoencoder of a workdir and, where it has been trained, the best prior; or a prior alone."""

    workdir: Path
    config: ConfigDict
    image_shape: tuple[int, int, int] | None  # None: it has no autoencoder
    latent_shape: tuple[int, int]
    class_names: tuple[str, ...]

    @classmethod
    def load(cls, workdir: str | Path) -> "TrainedRun":
        """Reads what the run is; UserError if `workdir` holds none. Checkpoints are read when first needed."""
        workdir = Path(workdir)
        config = ConfigDict(load_config(workdir))
        dataset = read_json(workdir / DATASET)
        if not dataset:
            raise UserError(f"no run in {workdir}: {workdir / DATASET} does not exist")
        class_names = tuple(dataset["class_names"])
        if "latent_shape" in dataset:
            height, width = dataset["latent_shape"]
            return cls(workdir, config, None, (height, width), class_names)
        height, width, channels = dataset["image_shape"]
        shape = (height, width, channels)
        return cls(workdir, config, shape, autoencoder_of(config, shape).latent_shape, class_names)

    @cached_property
    def model(self) -> Autoencoder:
        """The autoencoder; UserError where there is none."""
        if self.image_shape is None:
            raise UserError(f"{self.workdir} has a prior over latents of its own and no autoencoder, so no images")
        return autoencoder_of(self.config, self.image_shape)

    @cached_property
    def _autoencoder_state(self) -> TrainState:
        stage = autoencoder_stage(self.model, np.zeros((1, *self.model.image_shape), np.uint8))
        return self._best(stage, self.config.autoencoder)

    @property
    def autoencoder_step(self) -> int:
        """The training step of the autoencoder's best checkpoint."""
        return int(self._autoencoder_state.step)

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
        """The prior's networks."""
        return prior_of(self.config, len(self.class_names), self.latent_shape)

    @cached_property
    def prior_params(self) -> Any:
        """The prior's parameters, from its best checkpoint; UserError before there is one."""
        nowhere = np.zeros(self.prior.num_codes, bool)  # shapes do not depend on where
        stage = prior_stage(self.prior, self.latent_shape, self.num_pixels, nowhere)
        if not checkpoint_folder(stage, self.workdir).is_dir():
            raise UserError(
                f"{self.workdir} has no prior to sample from yet: run "
                f"python train.py --workdir={self.workdir} --config.stage=prior"
            )
        if self.image_shape:
            check_latents(self.workdir, self.autoencoder_step)
        return self._best(stage, self.config.prior).eval_params

    @cached_property
    def tables(self) -> Tables:
        """How tokens become latents; UserError before there is a prior."""
        return read_tables(self.workdir)

    def _best(self, stage: Stage, section: ConfigDict) -> TrainState:
        create = partial(initial_state, stage, fit_options_of(section), 1, 0)
        folder = checkpoint_folder(stage, self.workdir)
        if not folder.is_dir():
            raise UserError(f"no checkpoint of the {stage.name} in {self.workdir}: train it first")
        checkpoints = Checkpoints(folder, objective=stage.objective, read_only=True)
        try:
            return checkpoints.restore_best(jax.eval_shape(create))
        finally:
            checkpoints.close()

    def continuous_part_note(self) -> str:
        """One line on the continuous part of a drawn latent, "" where there is none."""
        options, mode = self.config.prior, self.config.latent.mode
        outside = " outside the mask" if mode == "combined" else ""
        if mode == "vq":
            return ""
        if mode == "frequency":
            return f"positions outside the mask add a residual, drawn in steps of {options.residual_step}"
        if options.num_bins == 1:
            mean = "their code's mean gain" if options.bins_per_code else "the mean length of all"
            return f"positions{outside} use {mean}, which the prior does not draw"
        return f"positions{outside} use one of {options.num_bins} gains, drawn with the codes"

    def sample(
        self,
        labels: np.ndarray,
        *,
        seed: int = 0,
        options: SamplingOptions = DEFAULT_OPTIONS,
        tokens: Iterable[np.ndarray] | None = None,
        keep: Callable[[jax.Array], Kept] | None = None,
    ) -> Iterator[Drawn]:
        """One image for each of `labels` `[N]` int32 (ignored by an unconditional prior), in pieces of at most `BATCH`.

        Image n depends on `seed`, n and its label only; and, where `keep` says what is not drawn of `tokens`, N of
        `[h, w, 1 + c]`, on these. UserError for an option or label out of range; -1 is no class.
        """
        options.check(self.prior.num_classes)
        wrong = labels[(labels < NO_CLASS) | (labels >= len(self.class_names))]
        if self.prior.num_classes and len(wrong):
            raise UserError(
                f"label {wrong[0]} is out of range: the classes are 0 to {len(self.class_names) - 1} "
                f"({', '.join(self.class_names)})"
            )
        self._check_options(options, labels)
        draw = jax.jit(partial(self._draw, options=options, keep=keep))
        prior_params = self.prior_params  # first, since it says so where there is no prior yet
        variables = self.variables if self.image_shape else None
        key = jax.random.key(seed)
        pieces = None if tokens is None else _pieces(tokens)

        def dispatched() -> Iterator[tuple[Drawn, int]]:
            for start in range(0, len(labels), BATCH):
                piece = labels[start : start + BATCH]
                given = None if pieces is None else _padded(next(pieces))
                padded = _padded(piece.astype(np.int32))
                yield draw(variables, prior_params, self.tables, key, padded, start, given), len(piece)

        return _one_ahead(dispatched())

    def _check_options(self, options: SamplingOptions, labels: np.ndarray) -> None:
        """Raises UserError for an option that this run's prior has no use for."""
        if options.guidance and not self.config.prior.label_dropout:
            raise UserError(
                f"guidance is {options.guidance}, but this run's prior was always told the class "
                "(prior.label_dropout=0) and cannot do without"
            )
        if options.guidance and (labels == NO_CLASS).any():
            raise UserError(f"guidance is {options.guidance}, but there is no class to guide to: name one by --label")
        if options.continuous_temperature != 1 and self.prior.continuous is None:
            raise UserError(
                f"continuous_temperature is {options.continuous_temperature}, but this run's prior draws codes only "
                f"(latent {self.config.latent.mode}, {self.config.prior.num_bins} bins)"
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
    ) -> Drawn:
        condition = labels if self.prior.num_classes else None
        keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(BATCH))
        drawn = sample(
            self.prior,
            prior_params,
            condition,
            keys,
            *self.latent_shape,
            present=tables.present,
            options=options,
            kept=None if given is None or keep is None else keep(given),
        )
        if variables is None:
            parts = continuous_parts(drawn.tokens, tables, self.config.latent.projection_groups)
            return Drawn(drawn.tokens[..., 0], continuous=parts if parts.shape[-1] else None)
        return self._decode(variables, tables, drawn.tokens)

    def _decode(self, variables: Variables, tables: Tables, tokens: jax.Array) -> Drawn:
        codebook, groups = autoencoder.codes(self.model, variables), self.model.latent.projection_groups
        z_bar, gains = from_tokens(tokens, tables, codebook, groups)
        images = to_uint8(autoencoder.decode(self.model, variables, z_bar))
        return Drawn(tokens[..., 0], images, gains, z_bar)

    def transmit(self, images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Drawn]]:
        """Tokens `[n, h, w, 1 + c]` of uint8 images `[H, W, C]`, and what is made of them again, in pieces.

        Unlike in `reconstruct` gains are rounded to their bins and residuals to their steps. UserError before there is
        a prior.
        """

        @jax.jit
        def through(variables: Variables, tables: Tables, images: jax.Array) -> tuple[jax.Array, Drawn]:
            tokens = to_tokens(*encode_whole(self.model, variables, images), tables)
            return tokens, self._decode(variables, tables, tokens)

        return _one_ahead((through(self.variables, self.tables, _padded(x)), len(x)) for x in _pieces(images))

    def reconstruct(self, images: Iterable[np.ndarray]) -> Iterator[Drawn]:
        """uint8 images `[H, W, C]` through encoder, latent and decoder, in pieces of at most `BATCH`."""

        @jax.jit
        def through(variables: Variables, images: jax.Array) -> Drawn:
            latent = autoencoder.encode_to_latent(self.model, variables, to_float(images))
            decoded = to_uint8(autoencoder.decode(self.model, variables, latent.z_bar))
            return Drawn(latent.indices, decoded, latent.gain_seen, latent.z_bar)

        return _one_ahead((through(self.variables, _padded(piece)), len(piece)) for piece in _pieces(images))


def _pieces(items: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Of at most `BATCH` items, stacked."""
    items = iter(items)
    while piece := list(itertools.islice(items, BATCH)):
        yield np.stack(piece)


def _padded(piece: np.ndarray) -> np.ndarray:
    """`[BATCH, ...]`, with zeros behind."""
    return np.pad(piece, ((0, BATCH - len(piece)), *[(0, 0)] * (piece.ndim - 1)))


def _one_ahead(dispatched: Iterable[tuple[Any, int]]) -> Iterator[Any]:
    """The first so many of each padded piece, as numpy arrays; the device is at the next while one is used."""
    before: tuple[Any, int] | None = None
    for current in itertools.chain(dispatched, [None]):
        if before is not None:
            drawn, count = before
            yield jax.tree.map(lambda x, count=count: np.asarray(x)[:count], drawn)
        before = current
