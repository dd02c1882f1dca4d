"""Small files in the formats in which the data sets are published."""

import gzip
import hashlib
import io
import pathlib
import struct
import tarfile
import zlib

import numpy as np
import tensorflow_datasets as tfds

IDX_NAMES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def labelled_images(count: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images whose labels run 0, 1, …, 9, 0, …"""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


def write_idx_files(folder: pathlib.Path, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, str]:
    """Write the four files of MNIST's layout; return their SHA-256 by name."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for split, arrays in splits.items():
        for name, array in zip(IDX_NAMES[split], arrays, strict=True):
            content = gzip.compress(idx_bytes(array))
            (folder / name).write_bytes(content)
            digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def write_tar(path: pathlib.Path, members: dict[str, bytes | tarfile.TarInfo]) -> None:
    """Write a .tar.gz of files, or of members described by a TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def stored(builder: tfds.core.DatasetBuilder, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a prepared split, in order."""
    examples = list(builder.as_data_source(split))
    return np.stack([example["image"] for example in examples]), np.array([example["label"] for example in examples])


def cifar_rows(images: np.ndarray) -> np.ndarray:
    """Return images [N, 32, 32, 3] in CIFAR's layout, [N, 3072]: channel by channel."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python2_pickle(value) -> bytes:
    """Pickle a dictionary of lists, numbers, bytes and arrays as Python 2 did: protocol 2, byte strings."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list | tuple):
        items = b"".join(map(_opcodes, value))
        return b"](" + items + b"e" if isinstance(value, list) else b"(" + items + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(key) + _opcodes(item) for key, item in value.items()) + b"u"
    dtype = b"cnumpy\ndtype\n" + _opcodes((value.dtype.str[1:].encode(), 0, 1)) + b"R"
    dtype += _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes(b"b") + b"tR"
    by_column = not value.flags.c_contiguous
    state = [_opcodes(1), _opcodes(value.shape), dtype, _opcodes(by_column), _opcodes(value.tobytes("A"))]
    return made + b"(" + b"".join(state) + b"tb"


def raw_png(
    width: int, height: int, depth: int, colour_type: int, rows: list[bytes], transparent: bytes = b""
) -> bytes:
    """Return a PNG of any kind, valid or not; Pillow reads more kinds than it writes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *([(b"tRNS", transparent)] if transparent else []), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
