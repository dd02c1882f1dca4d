"""Writes small files in the formats that the data sets are published in."""

import gzip
import hashlib
import io
import pathlib
import struct
import tarfile

import numpy as np

IDX_NAMES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def labelled_images(count: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images whose labels run 0, 1, …, 9, 0, …"""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


def write_idx_files(folder: pathlib.Path, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, str]:
    """Writes the four files of MNIST's layout; returns their SHA-256 by name."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for split, arrays in splits.items():
        for name, array in zip(IDX_NAMES[split], arrays, strict=True):
            content = gzip.compress(idx_bytes(array))
            (folder / name).write_bytes(content)
            digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def write_tar(path: pathlib.Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
