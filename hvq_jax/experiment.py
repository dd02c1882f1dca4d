"""A whole run: data, both stages, evaluation, pictures and `summary.json`, from a config and a workdir."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.data.datasets import AnySplit, ImageDataset, load_dataset
from hvq_jax.errors import UserError
from hvq_jax.evaluation import plots
from hvq_jax.evaluation.classifier import accuracy, train_classifier
from hvq_jax.inference import DATASET, TrainedRun
from hvq_jax.prior_alone import PriorAlone, read_latents
from hvq_jax.run import RECONSTRUCTIONS, SAMPLES, Run
from hvq_jax.training import config as configuration
from hvq_jax.training.autoencoder_stage import autoencoder_stage
from hvq_jax.training.cluster import agreed, is_first, say
from hvq_jax.training.latent_data import LatentData, latent_data, write_tables
from hvq_jax.training.loop import RunContext, Stage
from hvq_jax.training.own_latents import OwnLatents
from hvq_jax.training.parallel import Parallel
from hvq_jax.training.preemption import Preemption
from hvq_jax.training.prior_stage import prior_stage
from hvq_jax.training.workdir import CONFIG, check_config, locked, read_json, write_json

_SHOWN_IMAGES = 16  # in TensorBoard and in reconstructions.png
_CLASSIFIED_PER_CLASS = 100
_CLASSIFIER_BYTES = 2**30  # of images, to train the classifier on


def run_experiment(config: ConfigDict, workdir: str) -> None:
    """Does what `config.stage` asks for, going on from whatever `workdir` already holds.

    In a cluster every process does all of it, and the first one writes. Raises UserError, with nothing in the workdir
    changed, when the config does not fit it, the data or the devices; Preempted after SIGTERM.
    """
    with Preemption().noticed() as preemption, open_experiment(config, workdir, preemption) as experiment:
        if isinstance(experiment, Experiment) and config.stage in ("all", "autoencoder"):
            experiment.train_autoencoder()
        if config.stage in ("all", "prior"):
            experiment.train_prior()
        experiment.say_where_everything_is()


@contextlib.contextmanager
def open_experiment(config: ConfigDict, workdir: str, preemption: Preemption) -> Iterator["Experiment | PriorAlone"]:
    """Checks everything that can be checked, reads the data, and holds `workdir` for the block; raises UserError.

    With `config.prior.latents` it is a prior alone.
    """
    with contextlib.ExitStack() as held:
        with agreed():
            configuration.validate(config)
            parallel = Parallel(config.parallel)
            parallel.check()
            for stage in _stages_of(config):
                parallel.check_batch_size(f"--config.{stage}.batch_size", config[stage].batch_size)
            folder = held.enter_context(locked(workdir)) if is_first() else Path(os.path.abspath(workdir))
            dataset = _data_of(config, folder)
            shared = (config, RunContext(folder, config.seed, parallel, preemption), dataset.description)
            experiment: Experiment | PriorAlone
            if isinstance(dataset, OwnLatents):
                experiment = PriorAlone(*shared, dataset)
            else:
                experiment = Experiment(*shared, dataset, configuration.autoencoder_of(config, dataset.image_shape))
            if is_first():
                write_json(folder / CONFIG, config.to_dict())
                write_json(folder / DATASET, _description(config, dataset))
        say(f"data: {experiment.data_name}: {dataset.description}")
        yield experiment


def _stages_of(config: ConfigDict) -> tuple[str, ...]:
    return ("prior",) if config.prior.latents else ("autoencoder", "prior")


def _data_of(config: ConfigDict, folder: Path) -> ImageDataset | OwnLatents:
    """The data set of `config`, after checking that what `folder` already holds was trained with both."""
    free: tuple[str, ...] = configuration.FREE_KEYS
    if not (folder / "checkpoints" / "prior").exists():
        free = (*free, "prior")  # nothing depends on them yet
    trained = (folder / "checkpoints").exists()
    if trained:
        check_config(folder, config.to_dict(), free=free)
    own = config.prior.latents
    dataset = read_latents(config) if own else load_dataset(**config.data)
    for stage in _stages_of(config):
        if config[stage].batch_size > len(dataset.train):
            raise UserError(
                f"--config.{stage}.batch_size={config[stage].batch_size}: there are only {len(dataset.train)} "
                f"training {'latents' if own else 'images'}"
            )
    if trained and read_json(folder / DATASET) != _description(config, dataset):
        raise UserError(
            f"{own or config.data.name} is not the data set that {folder} was trained on (see {folder / DATASET}): "
            "use that one or another --workdir"
        )
    return dataset


def _description(config: ConfigDict, dataset: ImageDataset | OwnLatents) -> dict[str, Any]:
    if isinstance(dataset, OwnLatents):
        of_kind = {"name": "latents", "latent_shape": list(dataset.latent_shape)}
    else:
        of_kind = {"name": config.data.name, "image_shape": list(dataset.image_shape)}
    return {
        **of_kind,
        "class_names": list(dataset.class_names),
        "fingerprint": dataset.fingerprint(),
    }


def _first_images(split: AnySplit) -> np.ndarray:
    return split.read(np.arange(min(len(split), _SHOWN_IMAGES)))[0]


def _some(split: AnySplit) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split, evenly spaced where all would take too much memory."""
    count = min(len(split), max(_CLASSIFIER_BYTES // math.prod(split.image_shape), 1))
    return split.read(np.linspace(0, len(split) - 1, count).astype(int))


@dataclasses.dataclass(frozen=True)
class Experiment(Run):
    """A run of both stages on images."""

    dataset: ImageDataset
    model: Autoencoder

    def autoencoder_stage(self) -> Stage:
        """The first stage."""
        return autoencoder_stage(self.model, _first_images(self.dataset.validation))

    def prior_stage(self) -> tuple[Stage, LatentData, int]:
        """The second stage, its data from the best autoencoder, and that autoencoder's step."""
        run = TrainedRun.load(self.workdir)
        latents = latent_data(
            run.model,
            run.variables,
            self.dataset,
            workdir=self.workdir,
            checkpoint_step=run.autoencoder_step,
            batch_size=self.config.prior.batch_size,
            options=configuration.continuous_options_of(self.config),
            parallel=self.context.parallel,
            preemption=self.context.preemption,
        )
        write_tables(self.workdir, latents.tables, run.autoencoder_step)
        num_pixels = math.prod(self.model.image_shape[:2])
        stage = prior_stage(
            run.prior,
            self.model.latent_shape,
            num_pixels,
            latents.tables.present,
            label_dropout=self.config.prior.label_dropout,
        )
        return stage, latents, run.autoencoder_step

    def train_autoencoder(self) -> None:
        """Trains the autoencoder, or goes on with it, and reports on the test split."""
        stage = self.autoencoder_stage()
        augmentation = configuration.augmentation_of(self.config)
        state = self.fit(stage, self.dataset.train, self.dataset.validation, augmentation)

        def report() -> dict[str, Any]:
            originals = _first_images(self.dataset.test)
            reconstructions = next(TrainedRun.load(self.workdir).reconstruct(originals)).images
            if is_first():
                plots.save_reconstructions(
                    self.workdir / RECONSTRUCTIONS,
                    originals,
                    reconstructions,
                    title=f"{self.config.data.name}, test images, latent: {self.model.latent.mode}",
                )
            return {"test": self.evaluate(stage, state, self.dataset.test)}

        self.report("autoencoder", {"step": int(state.step)}, report, RECONSTRUCTIONS)

    def train_prior(self) -> dict[str, Any]:
        """As of every run, and draws samples."""
        trained = super().train_prior()
        options = {**self.config.sampling.to_dict(), "seed": self.config.seed}
        self.report("samples", {**trained, **options}, lambda: self._sample(options), SAMPLES)
        return trained

    def _sample(self, options: dict[str, Any]) -> dict[str, Any]:
        run = TrainedRun.load(self.workdir)
        note = run.continuous_part_note()
        if note:
            say(f"samples: {note}")
        num_classes = len(run.class_names)
        conditional = bool(run.prior.num_classes)
        classify = options["classify"] and conditional
        per_class = max(options["per_class"], _CLASSIFIED_PER_CLASS if classify else 0)
        labels = np.repeat(np.arange(num_classes, dtype=np.int32), per_class)
        drawing = configuration.sampling_options_of(self.config)
        pieces = run.sample(labels, seed=options["seed"], options=drawing)
        images = np.concatenate([piece.images for piece in self.context.preemption.watch(pieces)])
        rows = images.reshape(num_classes, per_class, *images.shape[1:])
        if is_first():
            plots.save_samples(
                self.workdir / SAMPLES,
                rows[:, : options["per_class"]],
                run.class_names if conditional else [""] * num_classes,
                title=f"Samples, {self.config.data.name}, latent: {self.model.latent.mode}",
            )
        figures: dict[str, Any] = {"continuous_part": note or "none"}
        if classify:
            classifier = train_classifier(*_some(self.dataset.train), num_classes, seed=self.config.seed)
            figures["classifier_test_accuracy"] = accuracy(classifier, *_some(self.dataset.test))
            figures["class_accuracy"] = accuracy(classifier, images, labels)
        return figures
