"""The images that are compressed: of files, of an .npz, or of a split of the run's data set."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hvq_jax.data.datasets import AnySplit, ImageDataset, open_dataset
from hvq_jax.errors import UserError
from hvq_jax.files import full_path, printable, read_arrays, read_names
from hvq_jax.runs.batching import evenly_spaced
from hvq_jax.runs.image_inputs import ImageInputs
from hvq_jax.runs.sample_command import labels_of_images
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.runs.workdir import read_description
from hvq_jax.schema import Array

_PIECE = 1024  # images of a data set read at a time


@dataclasses.dataclass(frozen=True)
class Source:
    """Images, read when they are needed."""

    count: int
    read: Callable[[], Iterator[np.ndarray]]  # yields each image, uint8 [H, W, C]
    labels: np.ndarray | None  # [N] int32; None: unknown
    stems: list[str]  # a path for each, without an ending
    files: list[Path]  # that they are read from

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.read()


def find_source(
    run: TrainedRun,
    path: str | None,
    split: str,
    *,
    most: int | None = None,
    label: str | None = None,
    labels: bool = True,
) -> Source:
    """Return the images of `path`, or of a split where that is None, with the labels that the run's prior is given.

    Args:
        run: the run that the images are for.
        path: an image, a folder of images, or an .npz.
        split: train, validation or test.
        most: images of the split, evenly spaced; None: all.
        label: class of all images, name or number; None: that of each, as far as it is known.
        labels: whether the prior is given any.

    Raises:
        UserError: the images cannot be found or read, the label is none of the classes, or the run has no autoencoder.
    """

    def label_files(inputs: ImageInputs) -> np.ndarray | None:
        return labels_of_images(run, inputs, label) if labels else None

    _ = run.model  # a clear error if there is no autoencoder
    if label is not None and not run.options.prior.conditional:
        raise UserError("--label: the prior of this run is not conditional on the class")
    source = of_split(run, split, most) if path is None else of_path(run, path, label_files)
    if not labels or not run.prior.num_classes:
        return dataclasses.replace(source, labels=None)
    if label is not None and source.labels is not None:
        number = labels_of_images(run, ImageInputs(Path(), [""]), label)[0]
        return dataclasses.replace(source, labels=np.full(source.count, number, np.int32))
    return source


def of_path(run: TrainedRun, path: str, label_files: Callable[[ImageInputs], np.ndarray | None]) -> Source:
    """Return the images of an image file, a folder, or an .npz with `images` and, possibly, `labels`.

    Args:
        run: the run that the images are for.
        path: the file or folder.
        label_files: a function that returns the labels of image files.

    Raises:
        UserError: there is no such file or folder, no image in it, or not of the run's size.
    """
    if path.endswith(".npz"):
        return _of_arrays(run, full_path(path))
    inputs = ImageInputs.find(path)
    stems = [str(Path(name).with_suffix("")) for name in inputs.paths]
    return Source(len(inputs), lambda: inputs.read(run.model.image_shape), label_files(inputs), stems, inputs.files)


def _of_arrays(run: TrainedRun, path: Path) -> Source:
    advice = "give an .npz with images [N, H, W, C] uint8 and, possibly, labels [N]"
    height, width, channels = run.model.image_shape
    num_classes = max(len(run.class_names), 1)
    schema = {
        "images": Array("integers", ("N", height, width, channels), low=0, high=255),
        "labels": Array("integers", ("N",), low=-1, high=num_classes - 1),
    }
    names = read_names(path, advice=advice)
    wanted = {name: form for name, form in schema.items() if name == "images" or name in names}
    arrays = read_arrays(path, wanted, advice=advice)
    images = arrays["images"].astype(np.uint8)
    labels = arrays["labels"].astype(np.int32) if "labels" in arrays else None
    stems = [f"{number:06d}" for number in range(len(images))]
    return Source(len(images), lambda: iter(images), labels, stems, [path])


def of_split(run: TrainedRun, name: str, most: int | None = None) -> Source:
    """Return the images of the split `name` of the data set that the run was trained on.

    Args:
        run: the run.
        name: train, validation or test.
        most: how many images at most, evenly spaced; None: all.

    Raises:
        UserError: the data set cannot be opened, or is no longer the same.
    """
    return images_of_split(getattr(open_data(run), name), most)


def open_data(run: TrainedRun) -> ImageDataset:
    """Return the data set that the run was trained on; raise UserError if it cannot be, or is no longer the same."""
    dataset = open_dataset(run.options.data)
    if dataset.fingerprint() != read_description(run.workdir)["fingerprint"]:
        raise UserError(
            f"the data set {printable(run.options.data.name)} is no longer that which the run in {run.workdir} was "
            "trained on"
        )
    return dataset


def images_of_split(split: AnySplit, most: int | None = None) -> Source:
    """Return the images of an opened split, at most so many, evenly spaced."""
    rows = evenly_spaced(len(split), len(split) if most is None else most)
    pieces = [rows[start : start + _PIECE] for start in range(0, len(rows), _PIECE)]

    def read() -> Iterator[np.ndarray]:
        for piece in pieces:
            yield from split.read(piece)[0]

    labels = np.concatenate([split.read(piece)[1] for piece in pieces]).astype(np.int32)
    return Source(len(rows), read, labels, [f"{row:06d}" for row in rows], [])
