"""A user's own images in files of several formats, and what they hold."""

import contextlib
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from hvq_jax.data.datasets import ImageDataset, load_dataset
from hvq_jax.errors import UserError

SPLITS = ("train", "validation", "test")


def images(count: int, side: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def load(name: str, path: pathlib.Path, **options) -> ImageDataset:
    """Prepare a data set beside its files, and open it."""
    usual = {"manual_dir": path, "data_dir": path.parent / "prepared", "validation_size": 1, "test_size": 1}
    return load_dataset(name, **{**usual, **options})


def everything(dataset: ImageDataset) -> dict[str, tuple[bytes, int]]:
    """Return each image, as bytes, and its label by its name."""
    found = {}
    for split in SPLITS:
        read, labels = getattr(dataset, split).read(np.arange(len(getattr(dataset, split))))
        for name, image, label in zip(dataset.names[split].tolist(), read, labels.tolist(), strict=True):
            found[name.decode()] = (image.tobytes(), label)
    return found


@contextlib.contextmanager
def one_line(match: str):
    with pytest.raises(UserError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def nothing_prepared(path: pathlib.Path) -> bool:
    return not [*(path.parent / "prepared").rglob("*.array_record*"), *(path.parent / "prepared").rglob("incomplete.*")]
