"""Reading data sets that TFDS has prepared in array_record format, without TensorFlow."""

import io
import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.decode import decode_image
from hvq_jax.errors import UserError

_READ_AT_ONCE = 1024  # lists are read five times faster than single examples


def open_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set without the code that prepared it.

    Args:
        name: `name[/config][:version]`, as TFDS writes it.
        data_dir: where prepared data sets live; `None` is TFDS's default folder.

    Raises:
        UserError: it is not there.
    """
    folder = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except ValueError as error:
        raise UserError(
            f"no data set {name!r} in {folder}: ours are {', '.join(sorted(BUILDERS))}; "
            "prepare any other of TFDS where TensorFlow is installed: "
            f"tfds build {name} --file_format=array_record --data_dir={folder}"
        ) from error


def read_split(builder: tfds.core.DatasetBuilder, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the features "image" and "label" of a whole split into memory.

    Returns:
        images [N, H, W, C] uint8 (grey ones with C = 1) and labels [N] int32, in stored order.

    Raises:
        UserError: the split is missing, empty or unreadable, is not in array_record format, lacks
            one of the features, or its images are not uint8 of one size.
    """
    where = f"data set {builder.info.full_name} in {builder.data_path}"
    if split not in builder.info.splits:
        raise UserError(f"{where} has no {split} split, only {', '.join(builder.info.splits)}")
    if builder.info.splits[split].num_examples == 0:
        raise UserError(f"{where}: the {split} split is empty")
    _check_features(builder.info.features, where)
    try:
        examples = list(_examples(builder, split))
    except NotImplementedError as error:
        raise UserError(f"{where}: prepare it again with --file_format=array_record") from error
    except RuntimeError as error:
        raise UserError(f"{where} is damaged ({error}): delete it and prepare it again") from error
    shapes = {image.shape for image, _ in examples}
    if len(shapes) > 1:
        raise UserError(
            f"{where}: images have {len(shapes)} shapes, such as {min(shapes)} and {max(shapes)}; prepare them with one"
        )
    images = np.stack([image for image, _ in examples])
    labels = np.array([label for _, label in examples], np.int32)
    return images.reshape(*images.shape[:3], -1), labels


def _check_features(features: tfds.features.FeaturesDict, where: str) -> None:
    if not {"image", "label"} <= set(features):
        raise UserError(f"{where} needs the features image and label, has {', '.join(features)}")
    image, label = features["image"], features["label"]
    if not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"{where}: the feature label must be a ClassLabel, is {label}")
    if image.np_dtype != np.uint8 or len(image.shape) not in (2, 3):
        raise UserError(f"{where}: images must be uint8 [H, W] or [H, W, C], are {image}")


def _examples(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yields image, [H, W, C] or [H, W] uint8, and label of every example."""
    feature = builder.info.features["image"]
    is_encoded = isinstance(feature, tfds.features.Image)
    # TFDS would decode PNG and JPEG to whatever channels the file has, not to those declared.
    decoders = {"image": tfds.decode.SkipDecoding()} if is_encoded else None
    source = builder.as_data_source(split, decoders=decoders)
    for start in range(0, len(source), _READ_AT_ONCE):
        rows = range(start, min(start + _READ_AT_ONCE, len(source)))
        for example in source.__getitems__(rows):
            image = example["image"]
            if is_encoded:
                image = np.asarray(decode_image(io.BytesIO(image), feature.shape[-1]))
            yield image, example["label"]
