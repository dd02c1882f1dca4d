"""What every opened run does: train its stages, evaluate them, and report the results.

Plots are imported where they are used: training can start, and a finished run end, without waiting for matplotlib.
"""

import abc
import dataclasses
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from hvq_jax import layout
from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import AnySplit, ImageDataset
from hvq_jax.devices.cluster import is_first, say, wait_for_all
from hvq_jax.runs.ending import ending, next_command
from hvq_jax.runs.history import Change, earlier_options, from_the_start, read_history, write_history
from hvq_jax.runs.latent_data import LatentData
from hvq_jax.runs.options import RunOptions
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

    def blank_stage(self, name: str) -> AutoencoderStage | PriorStage:
        """Return the stage `name` without data: it has no images to show, and all codes have continuous parts.

        Every run has a second stage; a run with others overrides this.
        """
        if name != PriorStage.name:
            raise ValueError(f"name={name!r}: this run has no such stage")
        prior = self.options.prior_model(num_classes=len(self.dataset.class_names), grid=self.latent_shape)
        has_continuous = np.ones((len(prior.heads), prior.num_codes), bool)
        label_dropout = self.options.prior.label_dropout
        return PriorStage(prior, self.latent_shape, has_continuous=has_continuous, label_dropout=label_dropout)

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
