"""Evaluate 10,000 samples of each trained cell against 10,000 test images, in the features of a small classifier.

    python -m studies.samples.evaluate --manual_dir=/usr/share/datasets/fashion-mnist --runs=runs/samples

Writes `studies/samples/results/judged-NAME.json`, and `classifier.json` with the classifier's test accuracy and the
distance from training images to test images, the smallest that can be expected. The classifier is kept in --runs for
later evaluations.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Variables
from hvq_jax.command import exit_status
from hvq_jax.data.datasets import ImageDataset, load_dataset
from hvq_jax.errors import UserError
from hvq_jax.evaluation.classifier import (
    Classifier,
    ClassifierNetwork,
    accuracy,
    features,
    predict,
    train_classifier,
)
from hvq_jax.evaluation.distances import frechet_distance, precision_and_recall
from hvq_jax.evaluation.histogram import histogram_nats
from hvq_jax.files import read_arrays, read_json, write_arrays, write_json
from hvq_jax.images import to_uint8
from hvq_jax.latents import PROJECTION
from hvq_jax.layout import SAMPLES
from hvq_jax.priors.options import TokenOptions
from hvq_jax.priors.tokens import Tables, from_tokens
from hvq_jax.runs.latent_data import fit_tables
from hvq_jax.runs.latent_files import read_latents
from hvq_jax.runs.results import Decoded
from hvq_jax.runs.summary import read_summary
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.schema import Array, Keys
from hvq_jax.training.logging import set_quiet
from studies import find_results
from studies.comparison import name_place
from studies.samples.cells import cells

COUNT = 10_000
_EPOCHS = 12  # of training the classifier


class SampleMetrics(TypedDict):
    """The metrics of samples, from `Judge.samples`."""

    frechet_distance: float
    precision: float
    recall: float
    class_accuracy: float


class Judgement(TypedDict):
    """The content of judged-NAME.json; distances are those of Fréchet."""

    prior: Annotated[dict[str, float], Keys(("nats_per_latent", "bits_per_pixel"))]
    devices: str
    jax: str
    histogram_nats: float
    reconstructions: float
    transmitted: float
    samples: SampleMetrics
    mean_gains: NotRequired[SampleMetrics]
    transmitted_mean_gains: NotRequired[float]


class Baseline(TypedDict):
    """The content of classifier.json: about the classifier, and the distance of training images from test images."""

    test_accuracy: float
    frechet_distance: float
    devices: str
    jax: str


@dataclasses.dataclass(frozen=True)
class Judge:
    """A classifier, and the features of the test images, which all others are compared with."""

    classifier: Classifier
    real: np.ndarray  # [COUNT, 64]

    def distance(self, images: np.ndarray) -> float:
        """Return the Fréchet distance of `COUNT` uint8 images from the test images."""
        return frechet_distance(self.real, features(self.classifier, images))

    def samples(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return distance, precision, recall, and the share that the classifier assigns to their own class."""
        found = features(self.classifier, images)
        precision, recall = precision_and_recall(self.real, found)
        right = np.mean(predict(self.classifier, images) == labels)
        distance = frechet_distance(self.real, found)
        return {
            "frechet_distance": distance,
            "precision": precision,
            "recall": recall,
            "class_accuracy": float(right),
        }


def make_judge(dataset: ImageDataset, kept: Path) -> tuple[Judge, dict[str, float]]:
    """Return the judge and its baseline metrics; its classifier is read from `kept`, or trained and written there."""
    if not kept.exists():
        images, labels = dataset.train.read(np.arange(len(dataset.train)))
        write_classifier(train_classifier(images, labels, len(dataset.class_names), seed=0, epochs=_EPOCHS), kept)
    classifier = read_classifier(dataset, kept)
    test, test_labels = dataset.test.read(np.arange(COUNT))
    judge = Judge(classifier, features(classifier, test))
    return judge, {
        "test_accuracy": accuracy(classifier, test, test_labels),
        "frechet_distance": judge.distance(some_training_images(dataset)),
    }


def read_baseline(path: Path) -> dict[str, Any]:
    """Return the kept metrics of the classifier; raise UserError if their file is damaged."""
    return dict(read_json(path, Baseline, advice="delete it, and run studies.samples.evaluate again") or {})


def write_classifier(classifier: Classifier, path: Path) -> None:
    """Write the parameters of a classifier as an .npz."""
    write_arrays(path, flatten_dict(classifier.variables, sep="/"))


def read_classifier(dataset: ImageDataset, path: Path) -> Classifier:
    """Return the classifier of these images that `write_classifier` wrote; UserError if it is damaged."""
    network = ClassifierNetwork(len(dataset.class_names))
    images = jax.ShapeDtypeStruct((1, *dataset.image_shape), np.float32)
    shapes = flatten_dict(jax.eval_shape(network.init, jax.random.key(0), images), sep="/")
    schema = {name: Array("floats", leaf.shape) for name, leaf in shapes.items()}
    variables = unflatten_dict(read_arrays(path, schema, advice="delete it, and evaluate again"), sep="/")
    return Classifier(network, variables, dataset.image_shape)


def some_training_images(dataset: ImageDataset) -> np.ndarray:
    """Return `COUNT` training images."""
    return dataset.train.read(np.arange(COUNT))[0]


def mean_gains(run: TrainedRun) -> Tables:
    """Return tables with one bin per code, so that every position has its code's mean gain."""
    stored = read_latents(run.workdir, run.model, len(run.class_names))
    return fit_tables(run.model.row, stored, TokenOptions(num_bins=1))


def with_tables(run: TrainedRun, tables: Tables, indices: np.ndarray) -> np.ndarray:
    """Return the images `[n, H, W, C]` of plain codes `[n, h, w]`, with the gains of `tables`."""

    @jax.jit
    def decode(variables: Variables, indices: jax.Array) -> jax.Array:
        vectors, groups = partial(autoencoder.vectors, run.model, variables), run.options.latent.projection_groups
        z_bar, _ = from_tokens(indices[..., None], tables, vectors, groups)
        return to_uint8(autoencoder.decode(run.model, variables, z_bar))

    parts = range(0, len(indices), 500)
    return np.concatenate([np.asarray(decode(run.variables, indices[i : i + 500])) for i in parts])


def whole(pieces: Iterable[Decoded]) -> tuple[np.ndarray, np.ndarray]:
    """Return all images and all codes."""
    images, indices = zip(*((piece.images, piece.indices) for piece in pieces), strict=True)
    return np.concatenate(images), np.concatenate(indices)


def judged(run: TrainedRun, dataset: ImageDataset, judge: Judge) -> dict[str, Any]:
    """Return rates, and the distances of samples, transmitted images and reconstructions from the test images.

    The distances of samples and transmitted images are also measured with mean gains. Transmitted and reconstructed are
    training images, because all are compared with test images.
    """
    training = some_training_images(dataset)
    labels = np.arange(COUNT, dtype=np.int32) % len(run.class_names)
    drawn = whole(run.sample(labels))
    transmitted = whole(piece for _, piece in run.transmit(training))
    result = {
        **name_place(),
        "prior": _prior_metrics(run),
        "histogram_nats": measure_histogram_nats(run),
        "reconstructions": judge.distance(whole(run.reconstruct(training))[0]),
        "transmitted": judge.distance(transmitted[0]),
        "samples": judge.samples(drawn[0], labels),
    }
    if run.model.row.uses(PROJECTION):
        of_codes = partial(with_tables, run, mean_gains(run))
        result["mean_gains"] = judge.samples(of_codes(drawn[1]), labels)
        result["transmitted_mean_gains"] = judge.distance(of_codes(transmitted[1]))
    print(f"{run.workdir.name}: {result}", flush=True)
    return result


def _prior_metrics(run: TrainedRun) -> dict[str, float]:
    summary = read_summary(run.workdir)
    if "prior" not in summary:
        raise UserError(f"{run.workdir}: its prior is not fully trained; run train.py on it")
    metrics: dict[str, float] = summary["prior"]["test"]
    return metrics


def measure_histogram_nats(run: TrainedRun) -> float:
    """Return the nats per latent of the test codes under the baseline."""
    stored = read_latents(run.workdir, run.model, len(run.class_names))
    train, validation, test = (
        (stored[f"{name}_indices"], stored[f"{name}_labels"]) for name in ("train", "validation", "test")
    )
    return histogram_nats(train, validation, test, run.model.num_codes)


def write(name: str, result: dict[str, Any]) -> None:
    """Write a result to the study's results."""
    find_results("samples").mkdir(parents=True, exist_ok=True)
    write_json(find_results("samples") / f"{name}.json", result)


def main(arguments: list[str]) -> None:
    """Evaluate the trained cells that have no evaluation yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual_dir", required=True, help="the published files of Fashion-MNIST")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--only", default="", help="cells whose name contains this")
    options = parser.parse_args(arguments)
    set_quiet()
    asked = [cell for cell in cells() if options.only in cell.name]
    missing = [cell for cell in asked if not (find_results("samples") / f"judged-{cell.name}.json").exists()]
    trained = [cell for cell in missing if (cell.workdir(options.runs) / SAMPLES).exists()]
    if not trained:
        raise UserError(f"--runs={options.runs}: no trained cell without an evaluation; train with studies.train")
    dataset = load_dataset("fashion_mnist", manual_dir=options.manual_dir, data_dir=options.runs / "data")
    judge, about = make_judge(dataset, options.runs / "classifier.npz")
    write("classifier", about | name_place())
    for cell in trained:
        write(f"judged-{cell.name}", judged(TrainedRun.load(cell.workdir(options.runs)), dataset, judge))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
