"""Parquet and Arrow files: finding and reading their columns of images and labels.

Importing pyarrow takes a quarter of a second, so that only data sets of tables import this module.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hvq_jax.data.builders.classes import Labelled, RawLabel, classify
from hvq_jax.data.builders.collection import EncodedCollection, damage_named, digest_of
from hvq_jax.data.builders.decode_files import Encoded
from hvq_jax.data.builders.split_names import files_by_split
from hvq_jax.data.decode import ImageError
from hvq_jax.data.listing import find_files
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import open_regular

_ENDINGS = (".parquet", ".arrow")
_CACHE = "cache-"  # `datasets` puts the results of its transformations beside the files of a data set
_USUAL_IMAGES = ("image", "img", "jpg", "png", "webp")
_USUAL_LABELS = ("label", "labels")
_ROWS_AT_ONCE = 64
_PARQUET_MAGIC, _ARROW_MAGIC = b"PAR1", b"ARROW1"  # a stream of Arrow, as `datasets` writes it, has none
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_FEATURES = b"huggingface"  # the metadata in which `datasets` describes the columns


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a table that are read."""

    image: str
    label: str | None
    class_names: tuple[str, ...] | None  # that integer labels number


@dataclasses.dataclass(frozen=True)
class Table:
    """An open file."""

    schema: pa.Schema
    num_rows: Callable[[], int]
    batches: Callable[[list[str]], Iterable[pa.RecordBatch]]  # yields the columns of these names, some rows at a time


@dataclasses.dataclass(frozen=True)
class ImageRows(EncodedCollection):
    """The rows of tables; the name of an image is its file and its row, "train.parquet/17"."""

    tables: dict[str, list[str]]  # by split: the names of the files, below `root`
    image_column: str

    def files(self, split: str) -> Generator[Encoded, None, None]:
        """Yield the content of each image."""
        for name in self.tables[split]:
            with _opened(self.root / name) as table:
                for batch in table.batches([self.image_column]):
                    for value in batch.column(0):
                        yield _content(value.as_py())


def collect_tables(path: pathlib.Path, labels: str) -> ImageRows:
    """Find the columns of tables, and read the labels; see `ImageTable.collect`."""
    folder, listing = find_files(path, _ENDINGS, "your .parquet or .arrow file, or a folder of them")
    names = [name for name in listing.images if not pathlib.PurePath(name).name.startswith(_CACHE)]
    left_out = listing.left_out + collections.Counter({"cached": len(listing.images) - len(names)})
    if not names:
        raise UserError(f"{path} has only the cache of another program: name the folder of its data set")
    splits = files_by_split(folder, names) if path.is_dir() else {"train": names}
    columns = _common_columns(folder, [name for files in splits.values() for name in files], labels)
    labelled = {split: _labelled_rows(folder, files, columns.label) for split, files in splits.items()}
    for split, rows in labelled.items():
        if not rows:
            raise UserError(f"{folder / splits[split][0]} has no rows: add some or remove it")
    return ImageRows(
        root=folder,
        classified=classify(labelled, str(path), columns.class_names),
        digest=digest_of({name: listing.images[name] for name in names}, labels),
        other_files=left_out,
        tables=splits,
        image_column=columns.image,
    )


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Table]:
    """Yield an open Parquet or Arrow file; errors of the block name it."""
    with damage_named(path, "copy or download it again"), open_regular(path) as file:
        start = file.read(len(_ARROW_MAGIC))
        file.seek(0)
        if start.startswith(_PARQUET_MAGIC):
            with pq.ParquetFile(file) as parquet:
                yield Table(
                    parquet.schema_arrow,
                    lambda: parquet.metadata.num_rows,
                    functools.partial(parquet.iter_batches, _ROWS_AT_ONCE, None),
                )
        else:
            with pa.memory_map(str(path)) as source:  # so that a pass over the labels does not read the images
                yield _arrow_table(source, is_stream=start != _ARROW_MAGIC)


def _arrow_table(source: pa.NativeFile, *, is_stream: bool) -> Table:
    if is_stream and source.read_at(len(_END_OF_STREAM), max(source.size() - len(_END_OF_STREAM), 0)) != _END_OF_STREAM:
        raise ValueError("it is no Parquet or Arrow file, or cut off")  # pyarrow takes a missing end for one
    reader = pa.ipc.open_stream(source) if is_stream else pa.ipc.open_file(source)

    def every() -> Iterable[pa.RecordBatch]:
        return reader if is_stream else map(reader.get_batch, range(reader.num_record_batches))

    def batches(names: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in every():
            columns = batch.select(names)
            columns.validate(full=True)  # a damaged batch would be read out of bounds
            yield columns

    return Table(reader.schema, lambda: sum(batch.num_rows for batch in every()), batches)


def _find_columns(schema: pa.Schema, path: pathlib.Path, labels: str) -> Columns:
    """Return the columns to read of a table; `labels` is the value of data.labels.

    Raises:
        UserError: there is no column of images, or which to use is not clear; or labels are of another type.
        ArgumentError: there is no such column of labels, or there are several.
    """
    features = _features(schema, path)
    image = _find_image_column(schema, features, path)
    if labels == "none":
        return Columns(image, None, None)
    of_classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    usual = [name for name in _USUAL_LABELS if name in schema.names]
    label = labels if labels != "auto" else next(iter(usual or of_classes), None)
    if labels == "auto" and not usual and len(of_classes) > 1:
        raise ArgumentError(
            "labels=auto",
            f"{path} has the labels {' and '.join(of_classes)}: choose data.labels={of_classes[0]}, another, or none",
        )
    if label is None:
        return Columns(image, None, None)
    if label not in schema.names:
        raise ArgumentError(f"labels={label}", f"{path} has no such column, only {', '.join(schema.names)}")
    _check_label_type(schema.field(label), path)
    names = features.get(label, {}).get("names")
    return Columns(image, label, tuple(map(str, names)) if isinstance(names, list) else None)


def _features(schema: pa.Schema, path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return the description of the columns that `datasets` stores with a table, {} if there is none."""
    try:
        described = json.loads((schema.metadata or {}).get(_FEATURES, b"{}"))
        features = described.get("info", {}).get("features", {})
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: the description of its columns cannot be read ({error}): write it anew") from None


def _find_image_column(schema: pa.Schema, features: dict[str, dict[str, Any]], path: pathlib.Path) -> str:
    found = [field.name for field in schema if _holds_files(field.type)]
    found = [name for name in found if features.get(name, {}).get("_type") == "Image"] or found
    usual = [name for name in _USUAL_IMAGES if name in found]
    if not found:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise UserError(
            f"{path} has no column of image files, binary or {{bytes, path}}, only {columns or 'nothing'}: store the "
            "files, not their paths"
        )
    if len(found) > 1 and not usual:
        raise UserError(f"{path} has several columns of images: {', '.join(found)}: call the one to use image")
    return (usual or found)[0]


def _holds_files(kind: pa.DataType) -> bool:
    """Return whether values of this type may be image files: binary, or a struct with `bytes`."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_files(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _check_label_type(field: pa.Field, path: pathlib.Path) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        raise UserError(
            f"{path}: {field.name} has several labels per row (multi-label, {kind}): choose another column with "
            "data.labels=COLUMN, or data.labels=none"
        )
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (is_text or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise UserError(
            f"{path}: {field.name} must be integers or strings, not {kind}: choose another column with "
            "data.labels=COLUMN, or data.labels=none"
        )


def _common_columns(folder: pathlib.Path, names: Sequence[str], labels: str) -> Columns:
    """Return the columns that all files have in common."""
    found: dict[Columns, str] = {}
    for name in names:
        with _opened(folder / name) as table:
            found.setdefault(_find_columns(table.schema, folder / name, labels), name)
    if len(found) > 1:
        (first, one), (other, another), *_ = found.items()
        what = "names of classes" if first.class_names != other.class_names else "columns of images or labels"
        raise UserError(f"{folder}: {one} and {another} have different {what}: name the folder of one data set")
    return next(iter(found))


def _labelled_rows(folder: pathlib.Path, names: Sequence[str], column: str | None) -> Labelled:
    """Return the name and the label of each row of some files, in order."""
    rows: Labelled = []
    for name in names:
        with _opened(folder / name) as table:
            values: list[RawLabel] = []
            if column is None:
                values = [None] * table.num_rows()
            else:
                for batch in table.batches([column]):
                    values += batch.column(0).to_pylist()
        numbers = [int(value) if isinstance(value, bool) else value for value in values]
        rows += [(f"{name}/{row}", value) for row, value in enumerate(numbers)]
    return rows


def _content(value: Any) -> Encoded:
    """Return the image file in a row."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    path = value.get("path") if isinstance(value, dict) else None
    return ImageError(f"the row has only a path, {path}: store the files themselves" if path else "the row is empty")
