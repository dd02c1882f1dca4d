"""The same images in each format that data sets of one's own may have."""

import io
import pathlib
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_ROWS_AT_ONCE = 100  # as in the tables of Hugging Face's hub
_SHARDS = 4


def write_files(folder: pathlib.Path, count: int) -> None:
    """Write blurred noise of many sizes as JPEG and PNG files in two classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        width, height = random.integers(130, 400, 2).tolist()
        grain = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        path = folder / ("ab"[number % 2]) / f"{number}.{('jpg', 'png')[number // 2 % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC).save(path)


def write_formats(files: pathlib.Path, folder: pathlib.Path, side: int) -> dict[str, tuple[str, pathlib.Path]]:
    """Write the images in `files` in every format below `folder`; arrays as squares of `side` pixels.

    Returns:
        For each format, in words: the name of its data sets, and the path.
    """
    folder.mkdir()
    paths = sorted(files.rglob("*.*"), key=lambda path: int(path.stem))
    labels = ["ab".index(path.parent.name) for path in paths]
    table = pa.table({"image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths], "label": labels})
    pq.write_table(table, folder / "images.parquet", row_group_size=_ROWS_AT_ONCE)
    (folder / "saved").mkdir()
    with pa.OSFile(str(folder / "saved" / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=_ROWS_AT_ONCE)
    (folder / "shards").mkdir()
    for shard in range(_SHARDS):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as tar:
            for path, label in list(zip(paths, labels, strict=True))[shard::_SHARDS]:
                tar.add(path, path.name)
                info = tarfile.TarInfo(f"{path.stem}.cls")
                info.size = 1
                tar.addfile(info, io.BytesIO(str(label).encode()))
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(files))
    squares = [np.asarray(Image.open(path).convert("RGB").resize((side, side))) for path in paths]
    np.savez(folder / "images.npz", images=squares, labels=labels)
    return {
        "image folder": ("image_folder", files),
        "Parquet": ("image_table", folder / "images.parquet"),
        "Arrow": ("image_table", folder / "saved"),
        "tar": ("image_tar", folder / "shards"),
        "zip": ("image_zip", folder / "images.zip"),
        "npz": ("image_arrays", folder / "images.npz"),
    }
