"""Data sets as TFDS prepares them, to be read without the code that wrote them."""

import contextlib
import io
import pathlib
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from hvq_jax.data.builders.base import LocalInfo

TWO_CLASSES = tfds.features.ClassLabel(names=["a", "b"])


def tensor(*shape: int | None, encoding: str = "bytes") -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=encoding)


def encoded(image: np.ndarray, file_format: str = "PNG", mode: str | None = None) -> bytes:
    file = io.BytesIO()
    pixels = PIL.Image.fromarray(image)
    pixels.convert(mode or pixels.mode).save(file, file_format)
    return file.getvalue()


def write_dataset(
    folder: pathlib.Path, examples: list[dict[str, Any]] | dict[str, list[dict[str, Any]]], **features: Any
) -> pathlib.Path:
    """Prepare "garments" 2.1.0 from examples, by split or all for training; return the folder of its files."""
    splits = examples if isinstance(examples, dict) else {"train": examples}

    class Garments(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.1.0")

        def _info(self):
            return LocalInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            yield from enumerate(splits[split])

    tfds.disable_progress_bar()
    builder = Garments(data_dir=folder, file_format="array_record")
    with contextlib.redirect_stdout(None):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return folder / "garments" / "2.1.0"


def records_of(folder: pathlib.Path, split: str = "train") -> pathlib.Path:
    """Return the only file with the records of a split."""
    (path,) = folder.glob(f"garments-{split}.array_record-*")
    return path
