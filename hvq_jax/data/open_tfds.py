"""Data sets that TFDS has prepared in array_record format, opened without TensorFlow."""

import os

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.decode import Sides
from hvq_jax.data.examples import ExampleParser, has_label
from hvq_jax.data.feature_classes import known_features_only
from hvq_jax.data.folders import data_folder
from hvq_jax.data.streamed import StreamedSplit, damage_named
from hvq_jax.errors import UserError
from hvq_jax.files import check_regular_files

_MOST_CLASSES = 100_000  # larger integer labels are not taken for classes


def open_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> tfds.core.DatasetBuilder:
    """Open a prepared data set without the code that prepared it.

    Args:
        name: `name[/config][:version]`, as TFDS writes it.
        data_dir: folder of prepared data sets; `None` for the default of `data_folder`.

    Raises:
        UserError: the data set does not exist, or its description is damaged or names unknown classes.
    """
    folder = data_folder(data_dir)
    unknown = (
        f"no data set {name!r} in {folder}: choose one of {', '.join(sorted(BUILDERS))}, "
        "or prepare another one of TFDS's where TensorFlow is installed: "
        f"tfds build {name} --file_format=array_record --data_dir={folder}"
    )
    try:
        parsed, _ = tfds.core.naming.parse_builder_name_kwargs(name)
    except ValueError as error:
        raise UserError(unknown) from error
    description = f"the description of data set {name} in {folder}"
    with damage_named(description):
        check_regular_files(folder / parsed.name)
        try:
            with known_features_only():
                return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
        except tfds.core.DatasetNotFoundError as error:
            raise UserError(unknown) from error
        except UserError as error:
            raise UserError(f"{description} cannot be used: {error}") from error


def class_names(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Return the names of the classes, in the order of the labels.

    If the feature "label" is a ClassLabel, they are its names. If it is any other integer, the classes are 0 to the
    largest label in the train split, which takes a pass over that split. Without such a feature there is one class,
    "image".

    Raises:
        UserError: the train split is missing or damaged, or its labels are too large to be classes.
    """
    features = builder.info.features
    if not has_label(features):
        return ("image",)
    if isinstance(features["label"], tfds.features.ClassLabel) and features["label"].num_classes:
        return tuple(features["label"].names)
    train = open_split(builder, tfds.Split.TRAIN, num_classes=0)
    with damage_named(train.where):
        largest = max(train.parse.label(record) for rows in train.pieces() for record in train.fetch(rows))
    if largest >= _MOST_CLASSES:
        raise UserError(
            f"{train.where} has the label {largest}, too large for a class: prepare it with a ClassLabel, or without "
            "labels"
        )
    return tuple(map(str, range(largest + 1)))


def open_split(
    builder: tfds.core.DatasetBuilder, split: str, *, num_classes: int, sides: Sides | None = None, channels: int = 0
) -> StreamedSplit:
    """Open a split for reading its features "image" and "label", in stored order.

    Args:
        builder: an opened data set.
        split: name of the split.
        num_classes: number of classes; labels are below it.
        sides: resize images to cover (height, width) pixels and crop the centre; None keeps them as they are.
        channels: 1 for grey, 3 for colour; 0 for the number that the data set declares.

    Raises:
        UserError: the split is missing, empty or damaged, is not in array_record format, or has images that
            `ExampleParser` cannot read.
    """
    where = f"data set {builder.info.full_name} in {builder.data_path}"
    if split not in builder.info.splits:
        raise UserError(f"{where} has no {split} split, only {', '.join(builder.info.splits)}")
    if builder.info.splits[split].num_examples == 0:
        raise UserError(f"{where}: the {split} split is empty")
    parse = ExampleParser(builder.info.features, where, sides=sides, channels=channels)
    where = f"the {split} split of {where}"
    with damage_named(where):
        try:
            records = builder.as_data_source(
                split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format="array_record"
            )
        except (NotImplementedError, ValueError) as error:
            raise UserError(
                f"{where} is not in array_record format: prepare it again with --file_format=array_record"
            ) from error
    with damage_named(f"image 0 of {where}"):
        first, _ = parse(records.__getitems__([0])[0])
    last = len(records) - 1
    with damage_named(f"image {last} of {where}"):
        records.__getitems__([last])  # before memory is reserved for a number that the description may exaggerate
    return StreamedSplit(records, parse, np.arange(len(records)), first.shape, num_classes, where)
