"""A whole run: data, both stages, evaluation, pictures and `summary.json`, from a config and a workdir."""

import contextlib
import dataclasses
import math
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.data.datasets import ImageDataset, Split, load_dataset
from hvq_jax.errors import UserError
from hvq_jax.evaluation import plots
from hvq_jax.evaluation.classifier import accuracy, train_classifier
from hvq_jax.inference import DATASET, TrainedRun
from hvq_jax.training import config as configuration
from hvq_jax.training.autoencoder_stage import autoencoder_stage
from hvq_jax.training.latent_data import LatentData, latent_data
from hvq_jax.training.logging import in_one_line, read_records
from hvq_jax.training.loop import Stage, evaluator, fit
from hvq_jax.training.parallel import Parallel
from hvq_jax.training.prior_stage import prior_stage
from hvq_jax.training.state import TrainState
from hvq_jax.training.workdir import CONFIG, check_config, locked, read_json, write_json

SUMMARY = "summary.json"
LOSS_CURVES = "loss_curves.png"
RECONSTRUCTIONS = "reconstructions.png"
SAMPLES = "samples.png"

_STAGES = ("autoencoder", "prior")
_SHOWN_IMAGES = 16  # in TensorBoard and in reconstructions.png
_CLASSIFIED_PER_CLASS = 100


def run_experiment(config: ConfigDict, workdir: str) -> None:
    """Does what `config.stage` asks for, going on from whatever `workdir` already holds.

    Raises UserError, with nothing in the workdir changed, when the config does not fit it, the data or the devices.
    """
    with open_experiment(config, workdir) as experiment:
        if config.stage in ("all", "autoencoder"):
            experiment.train_autoencoder()
        if config.stage in ("all", "prior"):
            experiment.train_prior()
        experiment.say_where_everything_is()


@contextlib.contextmanager
def open_experiment(config: ConfigDict, workdir: str) -> Iterator["Experiment"]:
    """Checks everything that can be checked, reads the data, and holds `workdir` for the block; raises UserError."""
    configuration.validate(config)
    parallel = Parallel(config.parallel)
    for stage in _STAGES:
        parallel.check_batch_size(f"--config.{stage}.batch_size", config[stage].batch_size)
    with locked(workdir) as folder:
        free: tuple[str, ...] = configuration.FREE_KEYS
        if not (folder / "checkpoints" / "prior").exists():
            free = (*free, "prior")  # nothing depends on them yet
        if (folder / "checkpoints").exists():
            check_config(folder, config.to_dict(), free=free)
        dataset = load_dataset(**config.data)
        model = configuration.autoencoder_of(config, dataset.image_shape)
        for stage in _STAGES:
            if config[stage].batch_size > len(dataset.train):
                raise UserError(
                    f"--config.{stage}.batch_size={config[stage].batch_size}: there are only {len(dataset.train)} "
                    "training images"
                )
        described = {
            "name": config.data.name,
            "image_shape": list(dataset.image_shape),
            "class_names": list(dataset.class_names),
            "sha256": dataset.sha256(),
        }
        if (folder / "checkpoints").exists() and read_json(folder / DATASET) != described:
            raise UserError(
                f"{config.data.name} is not the data set that {folder} was trained on (see {folder / DATASET}): "
                "use that one or another --workdir"
            )
        write_json(folder / CONFIG, config.to_dict())
        print(f"data: {config.data.name}: {dataset.description}", flush=True)
        write_json(folder / DATASET, described)
        yield Experiment(config, folder, dataset, model, parallel)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run in its workdir."""

    config: ConfigDict
    workdir: Path
    dataset: ImageDataset
    model: Autoencoder
    parallel: Parallel

    def autoencoder_stage(self) -> Stage:
        """The first stage."""
        return autoencoder_stage(self.model, self.dataset.validation.images[:_SHOWN_IMAGES])

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
            parallel=self.parallel,
        )
        num_pixels = math.prod(self.model.image_shape[:2])
        return prior_stage(run.prior, self.model.latent_shape, num_pixels), latents, run.autoencoder_step

    def train_autoencoder(self) -> None:
        """Trains the autoencoder, or goes on with it, and reports on the test split."""
        stage = self.autoencoder_stage()
        state = self._fit(stage, self.dataset.train, self.dataset.validation)

        def report() -> dict[str, Any]:
            originals = self.dataset.test.images[:_SHOWN_IMAGES]
            plots.save_reconstructions(
                self.workdir / RECONSTRUCTIONS,
                originals,
                next(TrainedRun.load(self.workdir).reconstruct(originals)).images,
                title=f"{self.config.data.name}, test images, latent: {self.model.latent.mode}",
            )
            return {"test": self.evaluate(stage, state, self.dataset.test)}

        self._report("autoencoder", {"step": int(state.step)}, report, RECONSTRUCTIONS)

    def train_prior(self) -> None:
        """Trains the prior, or goes on with it, reports on the test split and draws samples."""
        stage, latents, autoencoder_step = self.prior_stage()
        state = self._fit(stage, latents.train, latents.validation)
        trained = {"step": int(state.step), "autoencoder_step": autoencoder_step}
        self._report("prior", trained, lambda: {"test": self.evaluate(stage, state, latents.test)})
        options = {**self.config.sampling.to_dict(), "seed": self.config.seed}
        self._report("samples", {**trained, **options}, lambda: self._sample(options), SAMPLES)

    def _fit(self, stage: Stage, train: Split, validation: Split) -> TrainState:
        return fit(
            stage,
            train,
            validation,
            workdir=self.workdir,
            options=configuration.fit_options_of(self.config[stage.name]),
            parallel=self.parallel,
            seed=self.config.seed,
        )

    def evaluate(self, stage: Stage, state: TrainState, split: Split) -> dict[str, float]:
        """The figures of `state` over a whole split."""
        evaluate = evaluator(stage, self.parallel)
        sums = evaluate(
            self.parallel.replicate(state),
            split=split,
            batch_size=self.config[stage.name].batch_size,
        )
        return stage.summarise(sums)

    def _sample(self, options: dict[str, Any]) -> dict[str, Any]:
        run = TrainedRun.load(self.workdir)
        note = run.continuous_part_note()
        if note:
            print(f"samples: {note}", flush=True)
        num_classes = len(run.class_names)
        conditional = bool(run.prior.num_classes)
        classify = options["classify"] and conditional
        per_class = max(options["per_class"], _CLASSIFIED_PER_CLASS if classify else 0)
        labels = np.repeat(np.arange(num_classes, dtype=np.int32), per_class)
        pieces = run.sample(labels, **{key: options[key] for key in ("seed", "temperature", "top_k", "top_p")})
        images = np.concatenate([piece.images for piece in pieces])
        rows = images.reshape(num_classes, per_class, *images.shape[1:])
        plots.save_samples(
            self.workdir / SAMPLES,
            rows[:, : options["per_class"]],
            run.class_names if conditional else [""] * num_classes,
            title=f"Samples, {self.config.data.name}, latent: {self.model.latent.mode}",
        )
        figures: dict[str, Any] = {"continuous_part": note or "none"}
        if classify:
            classifier = train_classifier(
                self.dataset.train.images,
                self.dataset.train.labels,
                num_classes,
                seed=self.config.seed,
            )
            test = self.dataset.test
            figures["classifier_test_accuracy"] = accuracy(classifier, test.images, test.labels)
            figures["class_accuracy"] = accuracy(classifier, images, labels)
        return figures

    def _report(
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
        print(f"{section}  {in_one_line(figures)}", flush=True)
        context = {
            "data": self.config.data.name,
            "data_description": self.dataset.description,
            "latent": self.model.latent.mode,
            "jax": jax.__version__,
            "python": platform.python_version(),
            "devices": f"{self.parallel.num_devices} × {jax.devices()[0].device_kind}",
        }
        if records := read_records(self.workdir):  # a converted run has none
            plots.save_loss_curves(self.workdir / LOSS_CURVES, records)
        write_json(self.workdir / SUMMARY, {**summary, **context, section: figures})

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
        print(f"Everything is in {self.workdir}:")
        for name, what in made:
            if (self.workdir / name).exists():
                print(f"  {name:22}{what}")
