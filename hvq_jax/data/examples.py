"""One record of a prepared data set, a serialised `tf.train.Example`, as an image and its label."""

import io
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from hvq_jax.data.decode import decode_image, fit_image
from hvq_jax.errors import UserError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for each number of channels


class ExampleParser:
    """Reads the features "image" and "label" of a record and leaves all others alone.

    So features of any other kind do no harm, and it takes half the time of TFDS's parser, which goes through them all.
    """

    def __init__(self, features: tfds.features.FeaturesDict, where: str, *, image_size: int = 0, channels: int = 0):
        """Checks that there are images of a kind that can be read.

        Args:
            features: of the data set.
            where: the data set and its folder, for messages.
            image_size: the shorter side is resized to it and the centre cropped; 0 leaves images as they are.
            channels: 1 makes them grey, 3 colour; 0 takes the number that the data set declares.

        Raises:
            UserError: there is no feature "image", it is not uint8 [H, W] or [H, W, C], or it cannot be converted.
        """
        feature = dict(features.items()).get("image")
        if not isinstance(feature, tfds.features.Image | tfds.features.Tensor):
            raise UserError(f"{where} needs a feature image, has {', '.join(map(str, features))}")
        if feature.np_dtype != np.uint8 or len(feature.shape) not in (2, 3):
            raise UserError(f"{where}: images must be uint8 [H, W] or [H, W, C], are {feature}")
        self._feature = feature
        self._has_label = has_label(features)
        self._image_size = image_size
        self._channels = channels
        self.is_encoded = isinstance(feature, tfds.features.Image)  # as PNG, JPEG or another file format
        stored_channels = feature.shape[2] if len(feature.shape) == 3 else 1
        if self.is_encoded:
            self._channels = channels or stored_channels or 3
        if (image_size or self._channels) and (stored_channels or 3) not in _MODES:
            raise UserError(f"{where}: images of {stored_channels} channels can be neither decoded nor converted")

    def __call__(self, record: bytes) -> tuple[np.ndarray, int]:
        """Returns the image, uint8 [H, W, C], and its label, 0 where there are none; raises on whatever is wrong."""
        fields = tf_example_pb2.Example.FromString(record).features.feature
        image = self._decoded(fields) if self.is_encoded else self._stored(fields)
        return image, self._label_of(fields)

    def label(self, record: bytes) -> int:
        """The label alone, without decoding the image."""
        return self._label_of(tf_example_pb2.Example.FromString(record).features.feature)

    def _label_of(self, fields: Any) -> int:
        return fields["label"].int64_list.value[0] if self._has_label else 0

    def _decoded(self, fields: Any) -> np.ndarray:
        """An image that was stored as a file."""
        # TFDS would give whatever channels the file has, not those declared.
        file = io.BytesIO(fields["image"].bytes_list.value[0])
        image = decode_image(file, self._channels, min_side=self._image_size)
        return _as_array(fit_image(image, self._image_size) if self._image_size else image)

    def _stored(self, fields: Any) -> np.ndarray:
        """An image that was stored as numbers."""
        value: Any
        if self._feature.shape.count(None) > 1:
            shape = np.array(fields["image/shape"].int64_list.value)
            value = {"value": _numbers(fields["image/value"]), "shape": shape}
        else:
            value = _numbers(fields["image"])
        image = self._feature.decode_example_np(value)
        image = image.reshape(*image.shape[:2], -1)
        height, width, channels = image.shape
        wanted = (self._image_size or height, self._image_size or width, self._channels or channels)
        if image.shape == wanted:
            return image
        picture = Image.fromarray(image[..., 0] if channels == 1 else image).convert(_MODES[wanted[2]])
        return _as_array(fit_image(picture, self._image_size) if self._image_size else picture)


def has_label(features: tfds.features.FeaturesDict) -> bool:
    """Whether each example has one integer called "label"; whatever else goes by that name is no class."""
    label = dict(features.items()).get("label")
    return isinstance(label, tfds.features.Tensor) and label.shape == () and np.issubdtype(label.np_dtype, np.integer)


def _numbers(field: Any) -> bytes | np.ndarray:
    """The bytes, or else the list, in which TFDS stores a tensor."""
    if field.HasField("bytes_list"):
        return field.bytes_list.value[0]
    return np.array(field.int64_list.value, np.uint8)


def _as_array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)
