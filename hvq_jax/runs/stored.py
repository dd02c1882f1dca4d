"""What a trained run consists of: its options, models and tables, and the arrays of its best checkpoints."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import numpy as np

from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.errors import UserError
from hvq_jax.files import full_path
from hvq_jax.latents import PROJECTION, Z_E, find_latent
from hvq_jax.layout import CHECKPOINTS
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.tokens import Tables
from hvq_jax.runs.latent_files import check_latents, read_tables
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.programs import encoded_shapes
from hvq_jax.runs.workdir import config_named, load_options, read_description
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.loop import checkpoint_folder, lost_best_step
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import abstract_state
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import TrainState

T = TypeVar("T")


@lru_cache(maxsize=256)
def _compiled(function: Callable[..., T], **fixed: Hashable) -> Callable[..., T]:
    program: Callable[..., T] = jax.jit(partial(function, **fixed))
    return program


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """The best autoencoder of a workdir and, if it has been trained, the best prior; or a prior alone."""

    workdir: Path
    options: RunOptions
    image_shape: tuple[int, int, int] | None  # None: it has no autoencoder
    own_latent_shape: tuple[int, int] | None  # of a prior alone
    class_names: tuple[str, ...]
    # Best states that are in memory already; None: read from the checkpoints when first needed.
    given_autoencoder: TrainState | None = dataclasses.field(default=None, repr=False, compare=False)
    given_prior: TrainState | None = dataclasses.field(default=None, repr=False, compare=False)
    # By stage, the steps of best states whose files are known to be whole, while no other process may change them.
    known_steps: Mapping[str, int] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    _programs: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def load(cls, workdir: str | Path) -> Self:
        """Open the run in `workdir`; raise UserError if there is none. Checkpoints are read when first needed."""
        workdir = full_path(workdir)
        options, dataset = load_options(workdir), read_description(workdir)
        class_names = tuple(dataset["class_names"])
        if "latent_shape" in dataset:
            height, width = dataset["latent_shape"]
            return cls(workdir, options, None, (height, width), class_names)
        height, width, channels = dataset["image_shape"]
        return cls(workdir, options, (height, width, channels), None, class_names)

    def with_autoencoder(self, best: TrainState | int) -> Self:
        """Return the same run with this autoencoder, or that of this step, to be read when it is needed."""
        if isinstance(best, TrainState):
            return dataclasses.replace(self, given_autoencoder=best)
        return dataclasses.replace(self, known_steps={**self.known_steps, AutoencoderStage.name: best})

    def with_prior(self, best: TrainState | int) -> Self:
        """Return the same run with this prior, or that of this step; an autoencoder that has been read is kept."""
        has_been_read = "autoencoder_state" in vars(self) or AutoencoderStage.name not in self.known_steps
        autoencoder = self.autoencoder_state if self.image_shape and has_been_read else self.given_autoencoder
        if isinstance(best, TrainState):
            return dataclasses.replace(self, given_autoencoder=autoencoder, given_prior=best)
        known_steps = {**self.known_steps, PriorStage.name: best}
        return dataclasses.replace(self, given_autoencoder=autoencoder, known_steps=known_steps)

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

    @property
    def num_codes(self) -> int:
        """The number of codes, K."""
        return self.options.quantizer.num_codes

    @cached_property
    def encoded_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array of `Encoded` of one image, without the first axis."""
        return encoded_shapes(self.model)

    @cached_property
    def autoencoder_stage(self) -> AutoencoderStage:
        """The first stage; it shows no images."""
        return AutoencoderStage(self.model, np.zeros((1, *self.model.image_shape), np.uint8), self.options.frozen)

    @cached_property
    def autoencoder_state(self) -> TrainState:
        """The best training state of the autoencoder."""
        return self.given_autoencoder or self._best(self.autoencoder_stage)

    @property
    def autoencoder_step(self) -> int:
        """The training step of the best autoencoder; 0 without one."""
        if not self.image_shape:
            return 0
        known = self.known_steps.get(AutoencoderStage.name)
        return int(self.autoencoder_state.step) if known is None else known

    @property
    def variables(self) -> Variables:
        """The autoencoder's arrays, from its best checkpoint."""
        state = self.autoencoder_state
        return Variables(state.eval_params, state.model_state)

    @cached_property
    def variables_on_device(self) -> Variables:
        """The same on the device, so that repeated calls need not copy them there."""
        return jax.device_put(self.variables)

    @cached_property
    def autoencoder_digest(self) -> str:
        """A digest of the autoencoder's arrays: latents are of autoencoders that have the same."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode() + array.tobytes())
        return digest.hexdigest()[:16]

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
    def scoring_stage(self) -> PriorStage:
        """The second stage with the run's own tables, to evaluate it."""
        return self.prior_stage(self.tables)

    @property
    def has_prior(self) -> bool:
        """Whether a prior has been trained, for however short a time."""
        return self.given_prior is not None or (self.workdir / CHECKPOINTS / PriorStage.name).is_dir()

    @cached_property
    def prior_state(self) -> TrainState:
        """The best training state of the prior; UserError before there is one."""
        if self.given_prior is not None:
            return self.given_prior
        stage = self.prior_stage()
        if not checkpoint_folder(stage, self.workdir).is_dir():
            raise UserError(
                f"{self.workdir} has no prior to sample from yet: run "
                f"python train.py --workdir={self.workdir} --config.stage=prior"
            )
        if self.image_shape:
            best = self.autoencoder_step  # first, for the error if there is none
            # If a better one is damaged, training does not decide between it and the prior.
            lost = lost_best_step(self.autoencoder_stage, self.workdir)
            remedy = f"run python train.py --workdir={self.workdir} --config.stage=prior to train the prior again"
            check_latents(self.workdir, best, remedy if lost is None else "")
        return self._best(stage)

    @property
    def prior_params(self) -> Any:
        """The prior's parameters, from its best checkpoint; UserError before there is one."""
        return self.prior_state.eval_params

    @cached_property
    def prior_params_on_device(self) -> Any:
        """The same on the device."""
        return jax.device_put(self.prior_params)

    @property
    def steps(self) -> dict[str, int]:
        """The training steps of the best prior and of the autoencoder whose latents it models."""
        known = self.known_steps.get(PriorStage.name)
        step = int(self.prior_state.step) if known is None else known
        return {"step": step, "autoencoder_step": self.autoencoder_step}

    @cached_property
    def tables(self) -> Tables:
        """The tables that turn tokens into latents; UserError before there is a prior."""
        index_shape = self.options.quantizer.index_shape
        return read_tables(self.workdir, self.options.latent, self.options.prior, self.prior.num_codes, index_shape)

    def _best(self, stage: Stage) -> TrainState:
        folder = checkpoint_folder(stage, self.workdir)
        if not folder.is_dir():
            raise UserError(f"no checkpoint of the {stage.name} in {self.workdir}: train it first")
        checkpoints = Checkpoints(folder, objective=stage.objective, read_only=True)
        try:
            return checkpoints.restore_best(abstract_state(stage, getattr(self.options, stage.name)))
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

    def compiled(self, function: Callable[..., T], **fixed: Hashable) -> Callable[..., T]:
        """Return `function` with some arguments fixed, compiled: once for each shape, however often it is asked for.

        Other runs in this process that have the same models use the same programs.

        Args:
            function: one of `programs.py`.
            fixed: its arguments that are no arrays.
        """
        key = function, tuple(sorted(fixed.items(), key=lambda item: item[0]))
        if key not in self._programs:
            self._programs[key] = _compiled(function, **fixed)
        program: Callable[..., T] = self._programs[key]
        return program

    def made_once(self, make: Callable[..., T], **options: Any) -> T:
        """Return `make(self, **options)`, the same for every call, so that what it compiles is kept.

        Args:
            make: a function of this run.
            options: its other arguments, hashable.
        """
        key = make, tuple(sorted(options.items(), key=lambda item: item[0]))
        if key not in self._programs:
            self._programs[key] = make(self, **options)
        found: T = self._programs[key]
        return found
