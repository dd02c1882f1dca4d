"""Make one training of the frontier and its points; a result that exists is not made again.

    python -m studies.frontier.make NAME --manual_dir=DIR --runs=DIR

`python -m studies.frontier` starts this process for each training. After SIGTERM it saves and ends, and the same
command resumes it.
"""

import argparse
import dataclasses
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hvq_jax.command import exit_status
from hvq_jax.data.datasets import ImageDataset
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import UserError
from hvq_jax.files import write_arrays, write_json
from hvq_jax.latents import PROJECTION, find_latent
from hvq_jax.runs.evaluation import evaluate
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.image_run import ImageRun
from hvq_jax.runs.latent_data import LatentData, latent_data
from hvq_jax.runs.latent_files import read_latents, write_tables
from hvq_jax.runs.open import open_run
from hvq_jax.runs.options import RunOptions, from_dict
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.logging import set_quiet
from hvq_jax.training.loop import RunContext, fit
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.state import TrainState
from studies.comparison import name_place
from studies.frontier.cells import SIZES, Point, Size, Training, trainings
from studies.frontier.codes_first import ContinuousGivenCodes
from studies.frontier.decoder import DecoderStage, TransmittedSplit
from studies.frontier.measure import QUALITIES, examples, measure
from studies.frontier.results import find_point, find_training, missing_points
from studies.rates.measure import lengths
from studies.run_metrics import radial_share

_ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Work:
    """A training under way: its autoencoder is trained, and points are made from it."""

    training: Training
    size: Size
    run: ImageRun
    trained: TrainedRun  # its autoencoder
    images: np.ndarray  # `[N, H, W, C]` uint8, the first of the test split

    @property
    def dataset(self) -> ImageDataset:
        """The images."""
        return self.run.dataset

    def context(self, folder: Path) -> RunContext:
        """Return the context of a point, which is trained in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        return dataclasses.replace(self.run.context, workdir=folder)

    def tokens(self, options: RunOptions) -> LatentData:
        """Return all images as tokens."""
        return latent_data(
            self.trained.model,
            lambda: self.trained.variables,
            self.dataset,
            workdir=self.run.workdir,
            checkpoint_step=self.trained.autoencoder_step,
            batch_size=options.prior.batch_size,
            options=options.prior,
            parallel=self.run.context.parallel,
            preemption=self.run.context.preemption,
        )

    def with_prior(self, folder: Path, options: RunOptions, latents: LatentData) -> TrainedRun:
        """Train the prior of a point in `folder`, or resume it; return the whole run."""
        write_tables(folder, latents.tables, self.trained.autoencoder_step)
        run = dataclasses.replace(self.trained, workdir=folder, options=options)
        state = self._fit(run.prior_stage(latents.tables), latents, folder, options)
        return run.with_prior(state)

    def continuous_given_codes(
        self, folder: Path, options: RunOptions, latents: LatentData, run: TrainedRun
    ) -> dict[str, float]:
        """Train a prior of the continuous parts given all codes; return its bits per image on the first test images."""
        prior = run.prior
        network = prior.network.clone(parent=None)
        model = ContinuousGivenCodes(prior.num_codes, network, prior.heads, prior.head_width)
        stage = dataclasses.replace(run.prior_stage(latents.tables), model=model)
        state = self._fit(stage, latents, folder, options)
        test = dataclasses.replace(
            latents.test, items=latents.test.items[: len(self.images)], labels=latents.test.labels[: len(self.images)]
        )
        return {"continuous": self.run.evaluate(stage, state, test)["bits_per_image"]}

    def _fit(self, stage: PriorStage, latents: LatentData, folder: Path, options: RunOptions) -> TrainState:
        return fit(stage, latents.train, latents.validation, options=options.prior, run=self.context(folder))

    def fine_tuned(self, folder: Path, run: TrainedRun, latents: LatentData) -> TrainedRun:
        """Fine-tune the decoder on what is transmitted; return the run with it."""
        stage = DecoderStage(run.model, run.variables, latents.tables)
        splits = [
            TransmittedSplit(tokens.items, tokens.labels, images)
            for tokens, images in ((latents.train, self.dataset.train), (latents.validation, self.dataset.validation))
        ]
        state = fit(stage, *splits, options=self.size.fine_tuning, run=self.context(folder))
        assert run.given_autoencoder is not None  # `with_prior` keeps it
        return dataclasses.replace(run, given_autoencoder=stage.put_into(run.given_autoencoder, state))


def make(training: Training, size: Size, results: Path, runs: Path, data: Sequence[str]) -> None:
    """Make the points of a training that have no result.

    Args:
        training: one of `trainings(size)`.
        size: the size.
        results: the folder of the results.
        runs: the folder of the runs.
        data: options of the data set, as on the command line.
    """
    missing = missing_points(training, results)
    if not missing and find_training(training, results).exists():
        return
    workdir, start = training.cell.workdir(runs), time.process_time()
    options = parse(training.cell.arguments, workdir, data)
    results.mkdir(parents=True, exist_ok=True)
    with Preemption().noticed() as preemption, open_run(options, str(workdir), preemption) as run:
        assert isinstance(run, ImageRun)
        trained = run.train_autoencoder(TrainedRun.load(workdir))
        trained = trained.with_autoencoder(trained.autoencoder_state)  # which the folder of a point does not have
        count = min(size.num_images, len(run.dataset.test))
        work = Work(training, size, run, trained, run.dataset.test.read(np.arange(count))[0])
        if not find_training(training, results).exists():
            write_json(find_training(training, results), about_training(work, options, time.process_time() - start))
        for point in missing:
            _make_point(work, point, results, data)
    shutil.rmtree(workdir)


def _make_point(work: Work, point: Point, results: Path, data: Sequence[str]) -> None:
    training, size, start = work.training, work.size, time.process_time()
    folder = work.run.workdir / "points" / point.file_name
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("prior.conditional=False", *size.prior, *point.options)
    options = parse([*training.cell.arguments, *(f"--config.{key}" for key in keys)], work.run.workdir, data)
    latents = work.tokens(options)
    run = work.with_prior(folder, options, latents)
    fine_tuned = work.fine_tuned(folder, run, latents)
    found = measure(run, fine_tuned, latents, work.images)
    if point.codes_first:
        other = work.continuous_given_codes(folder / "codes_first", options, latents, run)
        found["codes_first_bits"] = other
    if training.cell.seed == 0:
        write_arrays(find_point(training, point, results, ".npz"), examples(fine_tuned, latents, work.images))
    described = {"curve": point.curve, "value": point.value, "training": training.name, "seed": training.cell.seed}
    found["prior_parameters"] = sum(leaf.size for leaf in jax.tree.leaves(run.prior_params))
    found["cpu_seconds"] = round(time.process_time() - start, 1)
    write_json(find_point(training, point, results), described | found | environment())
    shutil.rmtree(folder)


def about_training(work: Work, options: RunOptions, seconds: float) -> dict[str, Any]:
    """Return the metrics of an autoencoder that transmits its latent unrounded, and statistics of its gains."""
    metrics = evaluate(work.trained, work.images, None)
    kept = (*QUALITIES, "perplexity", "codes_used", "share_outside", "gain_mean", "gain_std")
    row = find_latent(options.latent.mode)
    found: dict[str, Any] = {
        **work.training.cell.labels,
        "seed": work.training.cell.seed,
        "num_images": len(work.images),
        **{name: metrics[name] for name in kept},
    }
    if row.uses(PROJECTION):
        work.tokens(options)  # encodes the images, where they are not yet
        stored = read_latents(work.run.workdir, work.trained.model, len(work.dataset.class_names))
        has_length = np.asarray(row.codes_with(PROJECTION, stored["frequent"]))
        found |= lengths(stored["test_indices"], stored["test_lengths"], has_length)
    if row.frequent == row.rare == PROJECTION:  # the terms of the loss are of the same positions
        to_projection = options.loss.commitment_target == "projection"
        found["radial_share"] = radial_share(metrics["projection"], metrics["commitment"], to_projection)
    return {**found, "options": list(work.training.cell.options), "cpu_seconds": round(seconds, 1), **environment()}


def parse(arguments: Sequence[str], workdir: Path, data: Sequence[str] = ()) -> RunOptions:
    """Return the options of a command line of `train.py`."""
    return from_dict(parse_command_line([*arguments, *data, f"--workdir={workdir}"]).config)


def environment() -> dict[str, str]:
    """Return the device, the version of JAX, and the commit of the code, "unknown" outside a repository."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=False)
    return {**name_place(), "commit": asked.stdout.strip() if asked.returncode == 0 else "unknown"}


def main(arguments: list[str]) -> None:
    """Make one training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the name of a training")
    parser.add_argument("--size", choices=SIZES, default="small", help="default: small")
    parser.add_argument("--manual_dir", required=True, help="the published files of the data set")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--results", type=Path, required=True, help="folder of the results")
    options = parser.parse_args(arguments)
    set_quiet()
    size = SIZES[options.size]
    named = {training.name: training for training in trainings(size)}
    if options.name not in named:
        raise UserError(f"{options.name}: there is no such training of the size {size.name}")
    data = (f"--config.data.manual_dir={options.manual_dir}", f"--config.data.data_dir={options.runs / 'data'}")
    make(named[options.name], size, options.results, options.runs.absolute(), data)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
