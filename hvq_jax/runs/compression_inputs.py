"""The images that are compressed: of files, of an .npz, or of a split of the run's data set."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hvq_jax.data.datasets import AnySplit, open_dataset
from hvq_jax.errors import UserError
from hvq_jax.files import full_path, printable, read_arrays, read_names
from hvq_jax.runs.image_inputs import ImageInputs
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


def of_split(run: TrainedRun, name: str) -> Source:
    """Return the images of the split `name` of the data set that the run was trained on.

    Raises UserError if the data set cannot be opened, or is no longer the same.
    """
    dataset = open_dataset(run.options.data)
    if dataset.fingerprint() != read_description(run.workdir)["fingerprint"]:
        raise UserError(
            f"--split={name}: the data set {printable(run.options.data.name)} is no longer that which the run was "
            "trained on"
        )
    split: AnySplit = getattr(dataset, name)

    def read() -> Iterator[np.ndarray]:
        for start in range(0, len(split), _PIECE):
            yield from split.read(np.arange(start, min(start + _PIECE, len(split))))[0]

    pieces = [np.arange(start, min(start + _PIECE, len(split))) for start in range(0, len(split), _PIECE)]
    labels = np.concatenate([split.read(rows)[1] for rows in pieces]).astype(np.int32)
    return Source(len(split), read, labels, [f"{number:06d}" for number in range(len(split))], [])
