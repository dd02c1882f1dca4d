"""Everything that a report says of a run, measured on its test images."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from hvq_jax.data.datasets import ImageDataset
from hvq_jax.errors import UserError
from hvq_jax.files import full_path, printable
from hvq_jax.latents import PROJECTION, Z_E, find_latent
from hvq_jax.progress import print_line
from hvq_jax.report.codebook import Atlas, CodeUse, find_use, make_atlas
from hvq_jax.report.examples import Examples, find_examples
from hvq_jax.report.pictures import png_file
from hvq_jax.report.samples import Nearest, Quality, find_nearest, judge
from hvq_jax.runs.batching import evenly_spaced
from hvq_jax.runs.compression_inputs import Source, images_of_split, open_data
from hvq_jax.runs.evaluate_command import measure
from hvq_jax.runs.history import Change, read_history
from hvq_jax.runs.loaded import LoadedRun
from hvq_jax.runs.summary import Summary, read_summary
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.runs.workdir import read_description
from hvq_jax.training.logging import read_records

MOST_EXAMPLES = 12
MOST_TILES = 1024
_MOST_NEIGHBOURS = 100  # test images that are compared with the training images


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Samples, one per test image and of its class, with the training images nearest to some of them."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray  # [N] int32, -1 for no class
    shown: np.ndarray  # the numbers of those that are shown
    nearest: Nearest  # to those shown
    nearest_to_test: np.ndarray  # distances of test images to theirs


@dataclasses.dataclass(frozen=True)
class Detail:
    """How much of the findings a report shows of each run, so that its file does not get too large."""

    examples: int
    tiles: int


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """What a report says of one run; what cannot be known is None, with the reason in `left_out`."""

    name: str
    run: LoadedRun
    summary: Summary
    records: list[dict[str, Any]]
    history: list[Change]
    metrics: dict[str, float]  # of these test images if `is_measured`, else those of the summary
    num_images: int = 0  # test images that all else is measured on; 0 without the data
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # reasons by what is missing
    contents: str = ""  # the number of images of each split in words; "" without the data
    not_used: str = ""  # the numbers of files of the data set that are not in it, by kind
    examples: Examples | None = None
    use: CodeUse | None = None
    atlas: Atlas | None = None
    drawn: Drawn | None = None
    quality: Quality | None = None

    @property
    def fingerprint(self) -> str:
        """What identifies the data that the run was trained on."""
        return str(read_description(self.run.stream.workdir)["fingerprint"])

    @property
    def mode(self) -> str:
        """The latent."""
        return str(self.run.stream.options.latent.mode)

    @property
    def is_discrete(self) -> bool:
        """Whether the decoder sees plain codes only."""
        row = find_latent(self.mode)
        return not (row.uses(PROJECTION) or row.uses(Z_E))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; of one, there is nothing to say."""
        names = self.run.class_names
        return names if len(names) > 1 else ()

    def class_name(self, label: int) -> str:
        """Return the name of a class, "" where there are none."""
        return self.class_names[label] if self.class_names and label >= 0 else ""

    @property
    def is_measured(self) -> bool:
        """Whether the metrics are of `num_images` test images, and not those of the summary."""
        return "num_images" in self.metrics

    @property
    def psnr_of_rounded(self) -> float | None:
        """The PSNR of images from rounded latents, which are what the prior's bits are of; None if it is not known."""
        return self.metrics.get("coded_psnr", self.metrics.get("psnr") if self.is_discrete else None)


def find(stream: TrainedRun, name: str, *, num_images: int, seed: int) -> Findings:
    """Return the findings on a run.

    Args:
        stream: the run.
        name: what it is called in the report.
        num_images: test images to measure, evenly spaced, and samples to draw, at most.
        seed: of the samples and of the classifier.

    Raises:
        UserError: files of the run are damaged.
    """
    read = Findings(
        name=name,
        run=LoadedRun(stream),
        summary=read_summary(stream.workdir),
        records=read_records(stream.workdir),
        history=read_history(stream.workdir),
        metrics={},
    )
    read = dataclasses.replace(read, metrics=_metrics_of_summary(read.summary))
    if stream.image_shape is None:
        return dataclasses.replace(read, left_out={"images": "this run is a prior over given latents"})
    try:
        data = open_data(stream)
    except UserError as error:
        return dataclasses.replace(read, left_out={"images": str(error)})
    # The arrays of the run and of the data set are not needed for the page, which may be of many runs.
    return _with_images(read, LoadedRun(dataclasses.replace(stream)), data, num_images, seed)


def _metrics_of_summary(summary: Summary) -> dict[str, float]:
    found: dict[str, float] = {}
    for section in ("prior", "autoencoder"):  # `loss` is the autoencoder's
        found |= summary.get(section, {}).get("test", {})  # type: ignore[attr-defined]
    return found


def _with_images(read: Findings, run: LoadedRun, data: ImageDataset, num_images: int, seed: int) -> Findings:
    """Return the findings with all that is measured on images."""
    left_out = dict(read.left_out)
    source = images_of_split(data.test, num_images)
    images, labels = np.stack(list(source)), source.labels
    assert labels is not None
    print_line(f"{read.name}: metrics of {len(images):,} test images")
    metrics = read.metrics
    try:
        metrics = _measure(run, source)
    except UserError as error:  # as where this device computes a probability in two ways
        left_out["rates"] = str(error)
    print_line(f"{read.name}: codes, and examples of images")
    shown = evenly_spaced(len(images), MOST_EXAMPLES)
    use = find_use(run, run.encode(images).indices)
    drawn = quality = None
    if run.stream.has_prior:
        print_line(f"{read.name}: {len(images):,} samples, and the training images nearest to some")
        drawn = _draw(run, data, source, seed)
    else:
        left_out["samples"] = "this run has no prior to draw from"
    print_line(f"{read.name}: a classifier to judge images")
    try:
        quality = _judge(run, data, images, labels, drawn, seed)
    except UserError as error:
        left_out["classifier"] = str(error)
    return dataclasses.replace(
        read,
        metrics={**metrics, "png_bits_per_image": 8 * float(np.mean([len(png_file(image)) for image in images]))},
        num_images=len(images),
        left_out=left_out,
        contents=data.contents,
        not_used=data.left_out,
        examples=find_examples(run, images[shown], labels[shown]),
        use=use,
        atlas=make_atlas(run, use, MOST_TILES),
        drawn=drawn,
        quality=quality,
    )


def _measure(run: LoadedRun, source: Source) -> dict[str, float]:
    """Return the metrics of test images; their classes are given to a prior that knows them."""
    if not run.stream.prior.num_classes:
        source = dataclasses.replace(source, labels=None)
    return measure(run.stream, source, portable=False)


def _judge(
    run: LoadedRun, data: ImageDataset, images: np.ndarray, labels: np.ndarray, drawn: Drawn | None, seed: int
) -> Quality:
    reconstructions = run.reconstruct(images).images
    samples = None if drawn is None else drawn.images
    drawn_for = None if drawn is None or not run.stream.prior.num_classes else drawn.labels
    return judge(data, (images, labels), reconstructions, samples, drawn_for, seed=seed)


def _draw(run: LoadedRun, data: ImageDataset, source: Source, seed: int) -> Drawn:
    """Return one sample per test image, of its class, drawn as those of samples.png."""
    assert source.labels is not None
    labels = source.labels if run.stream.prior.num_classes else np.full(len(source), -1, np.int32)
    pieces = run.stream.sample(labels, seed=seed, options=run.stream.options.sampling)
    images = np.concatenate([piece.images for piece in pieces])
    firsts = np.unique(labels, return_index=True)[1]  # one of each class
    order = np.concatenate([firsts, np.setdiff1d(np.arange(len(images)), firsts)])
    shown = order[:MOST_EXAMPLES]
    test = np.stack(list(images_of_split(data.test, _MOST_NEIGHBOURS)))
    nearest = find_nearest(np.concatenate([images[shown], test]), data.train)  # the training images are read once
    of_shown = Nearest(nearest.images[: len(shown)], nearest.distances[: len(shown)])
    return Drawn(images, labels, shown, of_shown, nearest.distances[len(shown) :])


def names_of(workdirs: list[str]) -> list[str]:
    """Return a short name of each workdir: the end of its path that tells it from the others.

    >>> names_of(["runs/a", "runs/b", "more/b"])
    ['a', 'runs/b', 'more/b']
    """
    paths = [full_path(workdir).parts for workdir in workdirs]

    def ends(length: int) -> list[str]:
        return [printable(Path(*parts[-length:])) for parts in paths]

    names = ends(1)
    for length in range(2, max(map(len, paths), default=1) + 1):
        longer = ends(length)
        names = [longer[i] if names.count(name) > 1 else name for i, name in enumerate(names)]
    return names
