"""Running an opened run: train the stages, evaluate them, draw samples, and report the results.

Plots and the codec are imported where they are used: training can start, and a finished run end, without waiting for
matplotlib and SciPy.
"""

import abc
import dataclasses
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from hvq_jax import layout
from hvq_jax.autoencoder import Autoencoder
from hvq_jax.codec import range_coder
from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import AnySplit, ImageDataset, data_title
from hvq_jax.devices.cluster import is_first, say, wait_for_all
from hvq_jax.errors import UserError
from hvq_jax.evaluation.classifier import accuracy, train_classifier
from hvq_jax.files import printable
from hvq_jax.runs.batching import evenly_spaced
from hvq_jax.runs.ending import ending, next_command
from hvq_jax.runs.history import Change, earlier_options, from_the_start, read_history, write_history
from hvq_jax.runs.latent_data import LatentData, latent_data
from hvq_jax.runs.latent_files import write_tables
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.outdated import set_outdated_aside
from hvq_jax.runs.own_latents import OwnLatents
from hvq_jax.runs.summary import read_summary, write_summary
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.checkpoint import newest_step
from hvq_jax.training.logging import read_records
from hvq_jax.training.loop import RunContext, checkpoint_folder, fit_or_find, lost_best_step, num_training_steps
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import evaluator
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import TrainState

_SHOWN_IMAGES = 16  # in TensorBoard and in reconstructions.png
_CLASSIFIED_PER_CLASS = 100
_CLASSIFIER_BYTES = 2**30  # of images to train the classifier on


@dataclasses.dataclass(frozen=True)
class Run(abc.ABC):
    """An opened run: its options are checked, its data read and its workdir locked."""

    has_images: ClassVar[bool]  # whether its latents become images

    options: RunOptions
    context: RunContext
    dataset: ImageDataset | OwnLatents

    @property
    def workdir(self) -> Path:
        """The run's folder."""
        return self.context.workdir

    @property
    @abc.abstractmethod
    def data_name(self) -> str:
        """The name of the training data."""

    @property
    @abc.abstractmethod
    def data_title(self) -> str:
        """The title of the training data, for people."""

    @property
    def data_description(self) -> str:
        """A description of the training data in a sentence or two."""
        return self.dataset.description

    @property
    def data_counts(self) -> str:
        """The number of items of each split, and what was left out, in a line."""
        return self.dataset.counts

    @property
    def train_split(self) -> AnySplit:
        """The items to train on: images, or the latents that a second stage alone is given."""
        return self.dataset.train

    @property
    @abc.abstractmethod
    def latent_shape(self) -> tuple[int, int]:
        """The sides (h, w) of the latents."""

    @abc.abstractmethod
    def blank_stage(self, name: str) -> AutoencoderStage | PriorStage:
        """Return the stage `name` without data: it has no images to show, and all codes have continuous parts."""

    def steps_left(self, stage: Stage) -> int:
        """Return the number of steps that a stage has still to take."""
        num_steps = num_training_steps(getattr(self.options, stage.name), self.train_split)
        return num_steps - (newest_step(checkpoint_folder(stage, self.workdir)) or 0)

    @abc.abstractmethod
    def work(self) -> None:
        """Run the stages named in the options, resuming from what the workdir already holds."""

    @abc.abstractmethod
    def prior_stage(self, trained: TrainedRun) -> tuple[PriorStage, LatentData]:
        """Return the second stage and its data, from the autoencoder of `trained` if there is one."""

    def train_prior(self, trained: TrainedRun) -> TrainedRun:
        """Train the prior, or resume it; report on the test split."""
        stage, latents = self.prior_stage(trained)
        trained = trained.with_prior(self.fit(stage, latents.train, latents.validation))
        made_from = {**trained.steps, **self._damage(stage)}
        self.report("prior", made_from, lambda: self.test(stage, trained.prior_state, latents.test))
        return trained

    def _damage(self, stage: Stage) -> dict[str, int]:
        """Return what the summary of a stage says if its best checkpoint was damaged, so that it is of another step."""
        lost = lost_best_step(stage, self.workdir)
        return {} if lost is None else {"damaged_best_step": lost}

    def fit(
        self, stage: Stage, train: AnySplit, validation: AnySplit, augmentation: Augmentation | None = None
    ) -> TrainState | int:
        """Train a stage from where it was stopped, and plot its losses; return what `fit_or_find` does."""
        options = getattr(self.options, stage.name)
        earlier = earlier_options(self._history(stage), stage.name, options)
        folder = checkpoint_folder(stage, self.workdir)
        before = newest_step(folder)
        best = fit_or_find(
            stage, train, validation, options=options, run=self.context, augmentation=augmentation, earlier=earlier
        )
        curves = self.workdir / layout.LOSS_CURVES
        if is_first() and (newest_step(folder) != before or not curves.exists()):
            from hvq_jax.evaluation import plots

            records = read_records(self.workdir)
            if plots.has_losses(records):  # a converted run has none
                plots.save_loss_curves(curves, records)
        return best

    def _history(self, stage: Stage) -> list[Change]:
        """Return the changes of the run's options; they hold from the start for a stage that starts over."""
        history = read_history(self.workdir)
        if newest_step(checkpoint_folder(stage, self.workdir)) is not None:
            return history
        history = from_the_start(history, stage.name)
        if is_first():
            write_history(self.workdir, history)
        return history

    def test(self, stage: Stage, state: TrainState, split: AnySplit) -> dict[str, Any]:
        """Return the summary of a trained stage, its metrics on the test split."""
        return {"test": self.evaluate(stage, state, split)}

    def evaluate(self, stage: Stage, state: TrainState, split: AnySplit) -> dict[str, float]:
        """Return the metrics of `state` over a whole split."""
        sums = evaluator(stage, self.context.parallel)(
            self.context.parallel.replicate(state),
            split=split,
            batch_size=getattr(self.options, stage.name).part_size,
            watch=self.context.preemption.watch,
        )
        return stage.summarise(sums)

    def report(
        self,
        section: str,
        made_from: dict[str, Any],
        make: Callable[[], dict[str, Any]],
        plot: str | None = None,
    ) -> None:
        """Add `make()` to the summary as `section`, unless it is already there, made from the same inputs."""
        summary: dict[str, Any] = {**read_summary(self.workdir)}
        written = summary.get(section, {})
        up_to_date = all(written.get(key) == value for key, value in made_from.items())
        if up_to_date and (plot is None or (self.workdir / plot).exists()):
            return
        metrics = {**made_from, **make()}
        if is_first():
            self._write(summary | {section: metrics})
        wait_for_all(f"{section} is reported")

    def _write(self, summary: dict[str, Any]) -> None:
        """Write the summary, with the data, the latent and the environment of its metrics."""
        context = {
            "data": self.data_name,
            "data_description": self.data_description,
            "latent": self.options.latent.mode,
            "jax": jax.__version__,
            "python": platform.python_version(),
            "devices": f"{self.context.parallel.num_devices} × {jax.devices()[0].device_kind}",
            "processes": jax.process_count(),
        }
        write_summary(self.workdir, {**summary, **context})

    def run(self) -> None:
        """Run the stages, and print the results and what to do next."""
        start = time.monotonic()
        self.work()
        if is_first():
            command = next_command(self.workdir, self.options.stages, has_images=self.has_images)
            for line in ending(self.workdir, time.monotonic() - start, command):
                say(line)


@dataclasses.dataclass(frozen=True)
class ImageRun(Run):
    """A run of both stages on images."""

    has_images: ClassVar[bool] = True

    dataset: ImageDataset
    model: Autoencoder

    @property
    def data_name(self) -> str:
        """The data set's name."""
        return self.options.data.name

    @property
    def data_title(self) -> str:
        """The data set's title."""
        return data_title(self.options.data.name)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """The sides (h, w) of the latents."""
        return self.model.latent_shape

    def work(self) -> None:
        """Run the stages named in the options, then draw samples."""
        trained = TrainedRun.load(self.workdir)
        if self.options.stage in ("all", "autoencoder"):
            trained = self.train_autoencoder(trained)
        if self.options.stage in ("all", "prior"):
            trained = self.train_prior(trained)
            self.report_coded(trained)
            options = {**dataclasses.asdict(self.options.sampling), "seed": self.options.seed}
            self.report("samples", {**trained.steps, **options}, lambda: self._sample(trained), layout.SAMPLES)

    def blank_stage(self, name: str) -> AutoencoderStage | PriorStage:
        """Return the first or the second stage."""
        if name == AutoencoderStage.name:
            return AutoencoderStage(self.model, np.zeros((0, *self.model.image_shape), np.uint8), self.options.frozen)
        return _blank_prior_stage(self.options, len(self.dataset.class_names), self.model.latent_shape)

    def autoencoder_stage(self) -> AutoencoderStage:
        """Return the first stage."""
        return AutoencoderStage(self.model, _images_to_show(self.dataset.validation), self.options.frozen)

    def train_autoencoder(self, trained: TrainedRun) -> TrainedRun:
        """Train the autoencoder, or resume it; report on the test split."""
        stage = self.autoencoder_stage()
        best = self.fit(stage, self.dataset.train, self.dataset.validation, self.options.augment)
        trained = trained.with_autoencoder(best)

        def report() -> dict[str, Any]:
            originals = _images_to_show(self.dataset.test)
            reconstructions = next(trained.reconstruct(originals)).images
            if is_first():
                from hvq_jax.evaluation import plots

                plots.save_reconstructions(
                    self.workdir / layout.RECONSTRUCTIONS,
                    originals,
                    reconstructions,
                    title=f"{self.data_title}: test images, {self.model.latent_options.mode} latent",
                )
            return self.test(stage, trained.autoencoder_state, self.dataset.test)

        made_from = {"step": trained.autoencoder_step, **self._damage(stage)}
        self.report("autoencoder", made_from, report, layout.RECONSTRUCTIONS)
        return trained

    def prior_stage(self, trained: TrainedRun) -> tuple[PriorStage, LatentData]:
        """Return the second stage, and its data from the best autoencoder."""
        step = trained.autoencoder_step  # first, since it says in one line that there is none
        # Where the best autoencoder was lost, the one of the prior was better.
        lost = lost_best_step(trained.autoencoder_stage, self.workdir) is not None
        if not lost and set_outdated_aside(self.workdir, step):
            for writer in self.context.writers:
                writer.start_over(PriorStage.name)
        latents = latent_data(
            self.model,
            lambda: trained.variables,
            self.dataset,
            workdir=self.workdir,
            checkpoint_step=step,
            batch_size=self.options.prior.part_size,
            options=self.options.prior,
            parallel=self.context.parallel,
            preemption=self.context.preemption,
        )
        write_tables(self.workdir, latents.tables, step)
        return trained.prior_stage(latents.tables), latents

    def report_coded(self, trained: TrainedRun) -> None:
        """Report what test images cost as a file, where they are to be coded and can be."""
        most = self.options.prior.coded_images
        made_from = {**trained.steps, "most_images": most}

        def report() -> dict[str, Any]:
            from hvq_jax.runs.coded_evaluation import evaluate_coded

            images, labels = _evenly_spaced(self.dataset.test, most)
            given = labels.astype(np.int32) if trained.prior.num_classes else None
            try:
                return {"test": evaluate_coded(trained, images, given, watch=self.context.preemption.watch)}
            except UserError as error:  # a device that computes the same differently is no reason to end the run
                return {"left_out": str(error)}

        if most and range_coder.is_installed():
            self.report("coded", made_from, report)
        elif most:
            say(f"coded: left out, since {range_coder.NEEDED}")

    def _sample(self, trained: TrainedRun) -> dict[str, Any]:
        note, options = trained.continuous_part_note(), self.options.sampling
        if note:
            say(f"samples: {note}")
        num_classes = len(trained.class_names)
        conditional = bool(trained.prior.num_classes)
        classify = options.classify and conditional
        per_class = max(options.per_class, _CLASSIFIED_PER_CLASS if classify else 0)
        labels = np.repeat(np.arange(num_classes, dtype=np.int32), per_class)
        pieces = trained.sample(labels, seed=self.options.seed, options=options)
        images = np.concatenate([piece.images for piece in self.context.preemption.watch(pieces)])
        rows = images.reshape(num_classes, per_class, *images.shape[1:])
        if is_first():
            from hvq_jax.evaluation import plots

            plots.save_samples(
                self.workdir / layout.SAMPLES,
                rows[:, : options.per_class],
                trained.class_names if conditional else [""] * num_classes,
                title=f"{self.data_title}: samples, {self.model.latent_options.mode} latent",
            )
        metrics: dict[str, Any] = {"continuous_part": note or "none"}
        if classify:
            classifier = train_classifier(*_images_to_classify(self.dataset.train), num_classes, seed=self.options.seed)
            metrics["classifier_test_accuracy"] = accuracy(classifier, *_images_to_classify(self.dataset.test))
            metrics["class_accuracy"] = accuracy(classifier, images, labels)
        return metrics


@dataclasses.dataclass(frozen=True)
class LatentRun(Run):
    """A run of the second stage alone, on user-provided latents (`prior.latents`)."""

    has_images: ClassVar[bool] = False

    dataset: OwnLatents

    def blank_stage(self, name: str) -> PriorStage:
        """Return the second stage."""
        del name
        return _blank_prior_stage(self.options, len(self.dataset.class_names), self.dataset.latent_shape)

    @property
    def data_name(self) -> str:
        """The name of the file of latents."""
        return str(self.options.prior.latents)

    @property
    def data_title(self) -> str:
        """The name of the file of latents, without its folder."""
        return printable(Path(self.data_name).name)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """The sides (h, w) of the latents."""
        return self.dataset.latent_shape

    def work(self) -> None:
        """Train the prior."""
        self.train_prior(TrainedRun.load(self.workdir))

    def prior_stage(self, trained: TrainedRun) -> tuple[PriorStage, LatentData]:
        """Return the second stage and its data."""
        latents = self.dataset.data
        write_tables(self.workdir, latents.tables, 0)
        return trained.prior_stage(latents.tables), latents


def _blank_prior_stage(options: RunOptions, num_classes: int, grid: tuple[int, int]) -> PriorStage:
    prior = options.prior_model(num_classes=num_classes, grid=grid)
    has_continuous = np.ones((len(prior.heads), prior.num_codes), bool)
    return PriorStage(prior, grid, has_continuous=has_continuous, label_dropout=options.prior.label_dropout)


def _images_to_show(split: AnySplit) -> np.ndarray:
    return _evenly_spaced(split, _SHOWN_IMAGES)[0]


def _images_to_classify(split: AnySplit) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a split; a subset if all would take too much memory."""
    return _evenly_spaced(split, max(_CLASSIFIER_BYTES // math.prod(split.item_shape), 1))


def _evenly_spaced(split: AnySplit, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to `most` images and labels of a split, from all its classes where it is sorted by class."""
    return split.read(evenly_spaced(len(split), most))
