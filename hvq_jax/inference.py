"""A trained run, ready to use: reconstruct images, draw new ones."""

import dataclasses
import math
from collections.abc import Iterator
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
from hvq_jax.latents import latent_from_codes
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.sampling import check_sampling_options, sample_cached
from hvq_jax.training.autoencoder_stage import autoencoder_stage
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.config import autoencoder_of, fit_options_of, prior_of
from hvq_jax.training.latent_data import FILE, check_latents, read_latents
from hvq_jax.training.loop import Stage, checkpoint_folder, initial_state
from hvq_jax.training.prior_stage import prior_stage
from hvq_jax.training.state import TrainState
from hvq_jax.training.workdir import load_config, read_json

DATASET = "dataset.json"
BATCH = 64  # images a compiled call; smaller requests are padded to it, so that each compiles once


@struct.dataclass
class Drawn:
    """Images with the latents they were decoded from; numpy arrays."""

    images: Any  # [N, H, W, C] uint8
    indices: Any  # [N, h, w] int32, [N, h, w, depth] of residual quantization
    gains: Any  # [N, h, w] or [N, h, w, g] float32; 1 where the decoder saw the plain code
    latents: Any  # [N, h, w, D] float32, what the decoder saw


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The best autoencoder of a workdir and, where it has been trained, the best prior."""

    workdir: Path
    config: ConfigDict
    model: Autoencoder
    class_names: tuple[str, ...]

    @classmethod
    def load(cls, workdir: str | Path) -> "TrainedRun":
        """Reads what the run is; UserError if `workdir` holds none. Checkpoints are read when first needed."""
        workdir = Path(workdir)
        config = ConfigDict(load_config(workdir))
        dataset = read_json(workdir / DATASET)
        if not dataset:
            raise UserError(f"no run in {workdir}: {workdir / DATASET} does not exist")
        height, width, channels = dataset["image_shape"]
        model = autoencoder_of(config, (height, width, channels))
        return cls(workdir, config, model, tuple(dataset["class_names"]))

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

    @cached_property
    def prior(self) -> PixelCNN:
        """The prior's network."""
        return prior_of(self.config, len(self.class_names))

    @cached_property
    def prior_params(self) -> Any:
        """The prior's parameters, from its best checkpoint; UserError before there is one."""
        stage = prior_stage(self.prior, self.model.latent_shape, math.prod(self.model.image_shape[:2]))
        if not checkpoint_folder(stage, self.workdir).is_dir():
            raise UserError(
                f"{self.workdir} has no prior to sample from yet: run "
                f"python train.py --workdir={self.workdir} --config.stage=prior"
            )
        check_latents(self.workdir, self.autoencoder_step)
        return self._best(stage, self.config.prior).eval_params

    @cached_property
    def mean_gains(self) -> np.ndarray:
        """`[K]`, or `[K, g]`, float32: what each code is multiplied by in a drawn latent, 1 for a plain code."""
        if self.model.latent.mode in ("vq", "frequency"):
            return np.ones(self.model.latent.num_codes, np.float32)
        return read_latents(self.workdir / FILE)["mean_gains"]

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
        """One line on what stands in for the continuous part of a drawn latent, "" where there is none."""
        return {
            "vq": "",
            "projected": "the prior covers the codes; each position uses its code's mean gain",
            "frequency": "the prior covers the codes; positions outside the mask use the code itself",
            "combined": "the prior covers the codes; positions outside the mask use their code's mean gain",
        }[self.model.latent.mode]

    def sample(
        self,
        labels: np.ndarray,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> Iterator[Drawn]:
        """One image for each of `labels` `[N]` int32 (ignored by an unconditional prior), in pieces of at most `BATCH`.

        Image n depends on `seed`, n and its label only. UserError for an option or label out of range.
        """
        check_sampling_options(temperature=temperature, top_k=top_k, top_p=top_p)
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise UserError(
                f"label {labels.min() if labels.min() < 0 else labels.max()} is out of range: the classes are 0 to "
                f"{len(self.class_names) - 1} ({', '.join(self.class_names)})"
            )
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        draw = jax.jit(partial(self._draw, options=options))
        prior_params = self.prior_params  # first, since it says so where there is no prior yet
        key, gains = jax.random.key(seed), jnp.asarray(self.mean_gains)
        for start in range(0, len(labels), BATCH):
            piece = labels[start : start + BATCH]
            padded = np.pad(piece, (0, BATCH - len(piece))).astype(np.int32)
            drawn = draw(self.variables, prior_params, gains, key, padded, start)
            yield _first(drawn, len(piece))

    def _draw(
        self,
        variables: Variables,
        prior_params: Any,
        mean_gains: jax.Array,
        key: jax.Array,
        labels: jax.Array,
        start: jax.Array,
        *,
        options: dict[str, Any],
    ) -> Drawn:
        condition = labels if self.prior.num_classes else None
        keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(BATCH))
        indices = sample_cached(self.prior, prior_params, condition, keys, *self.model.latent_shape, **options)
        gains = mean_gains[indices]
        z_bar = latent_from_codes(indices, autoencoder.codes(self.model, variables), gains)
        images = to_uint8(autoencoder.decode(self.model, variables, z_bar))
        return Drawn(images, indices, gains, z_bar)

    def reconstruct(self, images: np.ndarray) -> Iterator[Drawn]:
        """uint8 images `[N, H, W, C]` through encoder, latent and decoder, in pieces of at most `BATCH`."""

        @jax.jit
        def through(variables: Variables, images: jax.Array) -> Drawn:
            latent = autoencoder.encode_to_latent(self.model, variables, to_float(images))
            decoded = to_uint8(autoencoder.decode(self.model, variables, latent.z_bar))
            return Drawn(decoded, latent.indices, latent.gain_seen, latent.z_bar)

        for start in range(0, len(images), BATCH):
            piece = images[start : start + BATCH]
            padded = np.pad(piece, ((0, BATCH - len(piece)), (0, 0), (0, 0), (0, 0)))
            drawn = through(self.variables, padded)
            yield _first(drawn, len(piece))


def _first(drawn: Drawn, count: int) -> Drawn:
    return jax.tree.map(lambda x: np.asarray(x)[:count], drawn)
