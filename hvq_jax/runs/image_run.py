"""A run of both stages on images.

Plots and the codec are imported where they are used: training can start, and a finished run end, without waiting for
matplotlib and SciPy.
"""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from hvq_jax import layout
from hvq_jax.autoencoder import Autoencoder
from hvq_jax.codec import range_coder
from hvq_jax.data.datasets import AnySplit, ImageDataset, data_title
from hvq_jax.devices.cluster import is_first, say
from hvq_jax.errors import UserError
from hvq_jax.evaluation.classifier import accuracy, train_classifier
from hvq_jax.runs.batching import evenly_spaced
from hvq_jax.runs.latent_data import LatentData, latent_data
from hvq_jax.runs.latent_files import write_tables
from hvq_jax.runs.outdated import set_outdated_aside
from hvq_jax.runs.run import Run
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.loop import lost_best_step
from hvq_jax.training.prior_stage import PriorStage

_SHOWN_IMAGES = 16  # in TensorBoard and in reconstructions.png
_CLASSIFIED_PER_CLASS = 100
_CLASSIFIER_BYTES = 2**30  # of images to train the classifier on


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
        return super().blank_stage(name)

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


def _images_to_show(split: AnySplit) -> np.ndarray:
    return _evenly_spaced(split, _SHOWN_IMAGES)[0]


def _images_to_classify(split: AnySplit) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a split; a subset if all would take too much memory."""
    return _evenly_spaced(split, max(_CLASSIFIER_BYTES // math.prod(split.item_shape), 1))


def _evenly_spaced(split: AnySplit, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to `most` images and labels of a split, from all its classes where it is sorted by class."""
    return split.read(evenly_spaced(len(split), most))
