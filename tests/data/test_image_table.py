"""Parquet tables, and Arrow files as Hugging Face's `datasets` writes them."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_files import everything, images, load, nothing_prepared, one_line, png

from hvq_jax.data.builders.tables import ImageRows

IMAGES = images(12)
FILES = [png(image) for image in IMAGES]
CELLS = [{"bytes": file, "path": f"{row}.png"} for row, file in enumerate(FILES)]
LABELS = [row % 3 for row in range(12)]
NAMES = ["low", "mid", "high"]


def features(**columns) -> dict[bytes, bytes]:
    """Return the metadata in which `datasets` describes columns."""
    return {b"huggingface": json.dumps({"info": {"features": columns}}).encode()}


OF_CLASSES = features(image={"_type": "Image"}, label={"_type": "ClassLabel", "names": NAMES})


def write_parquet(path, table, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table if columns == {} else pa.table(columns), path, row_group_size=5)
    return path


def write_arrow(path, table, new=pa.ipc.new_stream):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return path


def read(path, **options):
    return load("image_table", path, **{"image_size": 8, **options})


def rows_of(name: str, first: int = 0, last: int = 12) -> dict:
    return {f"{name}/{row - first}": (IMAGES[row].tobytes(), LABELS[row]) for row in range(first, last)}


@pytest.mark.parametrize(
    ("image", "label"),
    [("image", "label"), ("img", "labels"), ("jpg", "label"), ("pixels", "label")],
)
@pytest.mark.parametrize("cells", [CELLS, FILES])
def test_a_parquet_file(tmp_path, cells, image, label):
    path = write_parquet(tmp_path / "a.parquet", None, **{"id": list(range(12)), image: cells, label: LABELS})
    dataset = read(path)
    assert dataset.class_names == ("0", "1", "2")
    assert everything(dataset) == rows_of("a.parquet")
    assert dataset.description == "Images of the file a.parquet, fitted to 8×8 pixels."
    assert dataset.counts.endswith("1 for testing; 8×8×3, 3 classes; validation and test taken from train")


def test_a_folder_from_the_hub_has_splits_and_names_of_classes(tmp_path):
    table = pa.table({"image": CELLS, "label": LABELS}).replace_schema_metadata(OF_CLASSES)
    parts = {"train-0-of-2": (0, 4), "train-1-of-2": (4, 7), "validation-0-of-1": (7, 10), "test-0-of-1": (10, 12)}
    for name, (first, last) in parts.items():
        write_parquet(tmp_path / "in" / "data" / f"{name}.parquet", table.slice(first, last - first))
    (tmp_path / "in" / "README.md").touch()
    dataset = read(tmp_path / "in")
    assert dataset.class_names == tuple(NAMES)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [7, 3, 2]
    expected = {}
    for name, (first, last) in parts.items():
        expected |= rows_of(f"data/{name}.parquet", first, last)
    assert everything(dataset) == expected
    assert dataset.left_out == "1 .md"


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_what_datasets_saves_to_disk(tmp_path, new):
    table = pa.table({"image": CELLS, "label": LABELS}).replace_schema_metadata(OF_CLASSES)
    for split, (first, last) in {"train": (0, 9), "test": (9, 12)}.items():
        folder = tmp_path / "in" / split
        write_arrow(folder / "data-00000-of-00001.arrow", table.slice(first, last - first), new)
        write_arrow(folder / "cache-1234.arrow", table.slice(0, 1), new)
        (folder / "state.json").write_text("{}")
    dataset = read(tmp_path / "in")
    expected = rows_of("train/data-00000-of-00001.arrow", 0, 9) | rows_of("test/data-00000-of-00001.arrow", 9, 12)
    assert (everything(dataset), dataset.class_names) == (expected, tuple(NAMES))
    assert dataset.left_out == "2 .json, 2 cached"


def test_labels_are_those_of_a_column(tmp_path):
    names = {"coarse": ["x", "y"], "fine": NAMES}
    metadata = features(**{column: {"_type": "ClassLabel", "names": listed} for column, listed in names.items()})
    coarse = [row % 2 for row in range(12)]
    table = pa.table({"image": FILES, "fine": LABELS, "coarse": coarse, "text": [f"t{row % 4}" for row in range(12)]})
    path = write_parquet(tmp_path / "a.parquet", table.replace_schema_metadata(metadata))
    with one_line("^labels=auto: .* has the labels fine and coarse: choose data.labels=fine, another, or none"):
        read(path)
    assert read(path, labels="fine").class_names == tuple(NAMES)
    assert read(path, labels="coarse").class_names == ("x", "y")
    assert read(path, labels="text").class_names == ("t0", "t1", "t2", "t3")
    assert read(path, labels="none").class_names == ("image",)
    with one_line("^labels=folder: .* has no such column, only image, fine, coarse, text"):
        read(path, labels="folder")


def test_other_types_of_labels_are_read(tmp_path):
    for number, values in enumerate(([True, False] * 6, pa.array(["a", "b"] * 6).dictionary_encode(), ["a", "b"] * 6)):
        dataset = read(write_parquet(tmp_path / f"{number}.parquet", None, image=FILES, label=values))
        assert len(dataset.class_names) == 2


def test_a_split_without_labels_counts_as_missing(tmp_path):
    write_parquet(tmp_path / "in" / "train.parquet", None, image=FILES, label=LABELS)
    for hidden in ([-1] * 3, pa.nulls(3, pa.int64())):
        write_parquet(tmp_path / "in" / "test.parquet", None, image=FILES[:3], label=hidden)
        dataset = read(tmp_path / "in")
        assert (dataset.carved, dataset.left_out) == (("validation", "test"), "3 without label")


def test_rows_without_an_image_are_left_out_only_if_asked_for(tmp_path):
    cells = [*CELLS[:9], {"bytes": None, "path": "/etc/passwd"}, None, {"bytes": FILES[0][:40], "path": None}]
    path = write_parquet(tmp_path / "a.parquet", None, image=cells, label=LABELS)
    with one_line(f"cannot read {path}/9: the row has only a path, /etc/passwd: store the files themselves; .*skip"):
        read(path)
    assert nothing_prepared(path)
    dataset = read(path, skip_corrupt=True)
    assert (everything(dataset), dataset.left_out) == (rows_of("a.parquet", 0, 9), "3 unreadable")


@pytest.mark.parametrize("count", [0, 11, 13])
def test_another_number_of_rows_than_of_labels_is_one_line(tmp_path, monkeypatch, count):
    monkeypatch.setattr(ImageRows, "files", lambda rows, split: (FILES[row % 12] for row in range(count)))
    path = write_parquet(tmp_path / "a.parquet", None, image=FILES, label=LABELS)
    with one_line("the train split has more or fewer images than were listed: it is damaged, or was changed meanwhile"):
        read(path)
    assert nothing_prepared(path)


SEVERAL = pa.array([[0, 1]] * 12)
BAD = {
    "no image column": ({"path": ["a.png"] * 12, "label": LABELS}, r"no column of image files.* only path \(string\)"),
    "several image columns": ({"a": FILES, "b": FILES}, "several columns of images: a, b: call the one to use image"),
    "several labels": ({"image": FILES, "label": SEVERAL}, r"label has several labels per row \(multi-label"),
    "labels that are numbers": ({"image": FILES, "label": [0.5] * 12}, "label must be integers or strings, not double"),
    "a missing label": (
        {"image": FILES, "label": [None, *LABELS[1:]]},
        "a.parquet/0 has no label, but others",
    ),
    "a negative label": ({"image": FILES, "label": [-3, *LABELS[1:]]}, "a.parquet/0 has the label -3, out of range"),
    "no rows": ({"image": pa.array([], pa.binary())}, "has no rows"),
    "no columns": ({}, "no column of image files, .* only nothing"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_one_line(tmp_path, name):
    columns, reason = BAD[name]
    path = write_parquet(tmp_path / "a.parquet", pa.table(columns))
    with one_line(f"{path}.*{reason}"):
        read(path)
    assert nothing_prepared(path)


def test_a_label_without_a_name_is_one_line(tmp_path):
    table = pa.table({"image": FILES, "label": [row % 4 for row in range(12)]}).replace_schema_metadata(OF_CLASSES)
    with one_line("a.parquet/3 has the label 3, out of range for the 3 classes 0 to 2"):
        read(write_parquet(tmp_path / "a.parquet", table))


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": 1}', b"[" * 100_000])
def test_a_damaged_description_is_one_line(tmp_path, metadata):
    table = pa.table({"image": FILES}).replace_schema_metadata({b"huggingface": metadata})
    with one_line("the description of its columns cannot be read"):
        read(write_parquet(tmp_path / "a.parquet", table))


@pytest.mark.parametrize("ending", ["parquet", "arrow", "file.arrow"])
@pytest.mark.parametrize("kept", [0, 4, 200, 3000, -8, -1])
def test_files_that_are_cut_off_are_one_line(tmp_path, ending, kept):
    table, path = pa.table({"image": CELLS, "label": LABELS}), tmp_path / f"a.{ending}"
    if ending == "parquet":
        write_parquet(path, table)
    else:
        write_arrow(path, table, pa.ipc.new_file if "file" in ending else pa.ipc.new_stream)
    content = path.read_bytes()
    path.write_bytes(content[:kept])
    with one_line(f"{path} cannot be read"):
        read(path)
    assert nothing_prepared(path)


def test_offsets_beyond_the_file_are_one_line(tmp_path):
    path = write_arrow(tmp_path / "a.arrow", pa.table({"image": FILES[:3], "label": LABELS[:3]}))
    offsets = np.cumsum([0, *map(len, FILES[:3])]).astype("<i4").tobytes()
    content = path.read_bytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, np.array([0, 10**9, 10**9, 2 * 10**9], "<i4").tobytes()))
    with one_line(f"{path} cannot be read"):
        read(path)


def test_other_files_and_folders_are_one_line(tmp_path):
    write_parquet(tmp_path / "in" / "train.parquet", None, image=FILES)
    write_parquet(tmp_path / "in" / "more.parquet", None, image=FILES)
    with one_line("in: more.parquet is of no split, but others are: give all names with train, val or test"):
        read(tmp_path / "in")
    os.rename(tmp_path / "in" / "more.parquet", tmp_path / "in" / "train-test.parquet")
    with one_line("train-test.parquet: is it of the split test or train"):
        read(tmp_path / "in")
    write_parquet(tmp_path / "in" / "train-test.parquet", None, img=FILES)
    os.rename(tmp_path / "in" / "train-test.parquet", tmp_path / "in" / "test.parquet")
    with one_line("in: train.parquet and test.parquet have different columns of images or labels"):
        read(tmp_path / "in")
    os.remove(tmp_path / "in" / "train.parquet")
    with one_line("in has files of the split test, but none of train"):
        read(tmp_path / "in")
    os.mkfifo(tmp_path / "pipe.parquet")
    with one_line("a named pipe, not a regular file"):
        read(tmp_path / "pipe.parquet")
    with one_line("image_table needs the size of the images in pixels: set for example data.image_size=64"):
        read(tmp_path / "in", image_size=0)
