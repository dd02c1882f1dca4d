"""What every run does in its workdir: train a stage, evaluate it, and say what came of it."""

import abc
import dataclasses
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import AnySplit
from hvq_jax.evaluation import plots
from hvq_jax.training import config as configuration
from hvq_jax.training.cluster import is_first, say, wait_for_all
from hvq_jax.training.latent_data import LatentData
from hvq_jax.training.logging import in_one_line, read_records
from hvq_jax.training.loop import RunContext, Stage, evaluator, fit
from hvq_jax.training.state import TrainState
from hvq_jax.training.workdir import read_json, write_json

SUMMARY = "summary.json"
LOSS_CURVES = "loss_curves.png"
RECONSTRUCTIONS = "reconstructions.png"
SAMPLES = "samples.png"


@dataclasses.dataclass(frozen=True)
class Run(abc.ABC):
    """A run in its workdir."""

    config: ConfigDict
    context: RunContext
    data_description: str  # in its author's words

    @property
    def workdir(self) -> Path:
        """The run's folder."""
        return self.context.workdir

    @property
    def data_name(self) -> str:
        """What it is trained on."""
        return self.config.prior.latents or self.config.data.name

    @abc.abstractmethod
    def prior_stage(self) -> tuple[Stage, LatentData, int]:
        """The second stage, its data, and the step of the autoencoder they are from, 0 without one."""

    def train_prior(self) -> dict[str, Any]:
        """Trains the prior, or goes on with it, reports on the test split; returns what was trained from what."""
        stage, latents, autoencoder_step = self.prior_stage()
        state = self.fit(stage, latents.train, latents.validation)
        trained = {"step": int(state.step), "autoencoder_step": autoencoder_step}
        self.report("prior", trained, lambda: {"test": self.evaluate(stage, state, latents.test)})
        return trained

    def fit(
        self, stage: Stage, train: AnySplit, validation: AnySplit, augmentation: Augmentation | None = None
    ) -> TrainState:
        """The best state of a stage, trained from where it was stopped."""
        options = configuration.fit_options_of(self.config[stage.name])
        return fit(stage, train, validation, options=options, run=self.context, augmentation=augmentation)

    def evaluate(self, stage: Stage, state: TrainState, split: AnySplit) -> dict[str, float]:
        """The figures of `state` over a whole split."""
        sums = evaluator(stage, self.context.parallel)(
            self.context.parallel.replicate(state),
            split=split,
            batch_size=self.config[stage.name].batch_size,
            watch=self.context.preemption.watch,
        )
        return stage.summarise(sums)

    def report(
        self,
        section: str,
        made_from: dict[str, Any],
        make: Callable[[], dict[str, Any]],
        picture: str | None = None,
    ) -> None:
        """Puts `make()` into the summary, unless it already stands there from the same inputs."""
        summary = read_json(self.workdir / SUMMARY)
        written = summary.get(section, {})
        up_to_date = all(written.get(key) == value for key, value in made_from.items())
        if up_to_date and (picture is None or (self.workdir / picture).exists()):
            return
        figures = {**made_from, **make()}
        say(f"{section}  {in_one_line(figures)}")
        if is_first():
            self._write(summary | {section: figures})
        wait_for_all(f"{section} is reported")

    def _write(self, summary: dict[str, Any]) -> None:
        """Writes the summary, with what its figures were made by, and the loss curves."""
        context = {
            "data": self.data_name,
            "data_description": self.data_description,
            "latent": self.config.latent.mode,
            "jax": jax.__version__,
            "python": platform.python_version(),
            "devices": f"{self.context.parallel.num_devices} × {jax.devices()[0].device_kind}",
            "processes": jax.process_count(),
        }
        if records := read_records(self.workdir):  # a converted run has none
            plots.save_loss_curves(self.workdir / LOSS_CURVES, records)
        write_json(self.workdir / SUMMARY, {**summary, **context})

    def say_where_everything_is(self) -> None:
        """Prints what is in the workdir."""
        made = [
            (SUMMARY, "figures on the test split"),
            (LOSS_CURVES, "losses of both stages"),
            (RECONSTRUCTIONS, "originals over reconstructions"),
            (SAMPLES, "a row of samples a class"),
            ("metrics.jsonl", "every logged figure"),
            ("events", "the same for TensorBoard: tensorboard --logdir"),
            ("checkpoints", "the newest and the best of each stage"),
        ]
        say(f"Everything is in {self.workdir}:")
        for name, what in made:
            if (self.workdir / name).exists():
                say(f"  {name:22}{what}")
