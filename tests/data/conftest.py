import pathlib

import numpy as np
import pytest
from published_files import labelled_images, write_idx_files

from hvq_jax.data.datasets import ImageDataset, load_dataset


@pytest.fixture(scope="session")
def tiny_splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {"train": labelled_images(30, (28, 28), 1), "test": labelled_images(12, (28, 28), 2)}


@pytest.fixture(scope="session")
def tiny_manual_dir(tmp_path_factory, tiny_splits) -> pathlib.Path:
    """The layout of (Fashion-)MNIST, with 30 training and 12 test images."""
    folder = tmp_path_factory.mktemp("manual")
    write_idx_files(folder, tiny_splits)
    return folder


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def mini(prepared_dir) -> ImageDataset:
    return load_dataset("fashion_mnist_mini", data_dir=prepared_dir)


@pytest.fixture(scope="session")
def tiny(prepared_dir, tiny_manual_dir) -> ImageDataset:
    return load_dataset("fashion_mnist", data_dir=prepared_dir, manual_dir=tiny_manual_dir, validation_size=8)
