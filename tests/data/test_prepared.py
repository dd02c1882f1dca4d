import errno
import io
import json
import os
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from prepared_files import TWO_CLASSES, encoded, records_of, tensor, write_dataset
from published_files import labelled_images

from hvq_jax.data.decode import decode_image, fit_image
from hvq_jax.data.open_tfds import class_names, open_prepared, open_split
from hvq_jax.errors import UserError

ANY_SIZE = tfds.features.Image(shape=(None, None, 3))


def read(folder, split="train", *, num_classes=2, **options):
    return open_split(open_prepared("garments", folder), split, num_classes=num_classes, **options).load()


def refused(folder, match, split="train", **options):
    """Return the one-line error."""
    with pytest.raises(UserError, match=match) as caught:
        read(folder, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["garments", "garments:2.1.0"])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_tensors_are_read_without_the_code_that_wrote_them(tmp_path, name, shape):
    images, labels = labelled_images(300, shape, 3)  # more than are read at once
    examples = [{"image": image, "label": int(label) % 2} for image, label in zip(images, labels, strict=True)]
    write_dataset(tmp_path, examples, image=tensor(*shape), label=TWO_CLASSES)
    builder = open_prepared(name, tmp_path)
    read_images, read_labels = open_split(builder, "train", num_classes=2).load()
    np.testing.assert_array_equal(read_images, images.reshape(300, 4, 6, -1), strict=True)
    np.testing.assert_array_equal(read_labels, labels.astype(np.int32) % 2, strict=True)
    assert class_names(builder) == ("a", "b")


@pytest.mark.parametrize(
    "feature",
    [
        tensor(4, 6, 3, encoding="none"),
        tensor(4, 6, 3, encoding="zlib"),
        tensor(None, 6, 3),
        tensor(None, None, 3),
        tensor(None, None, None, encoding="zlib"),
    ],
    ids=str,
)
def test_tensors_are_read_however_they_are_stored(tmp_path, feature):
    images, _ = labelled_images(3, (4, 6, 3), 3)
    write_dataset(tmp_path, [{"image": image, "label": 1} for image in images], image=feature, label=TWO_CLASSES)
    np.testing.assert_array_equal(read(tmp_path)[0], images, strict=True)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_images_get_the_declared_channels(tmp_path, mode, channels):
    black_or_white = (labelled_images(3, (4, 6), 4)[0] > 127) * np.uint8(255)  # exact in any mode
    examples = [{"image": io.BytesIO(encoded(image, mode=mode)), "label": 1} for image in black_or_white]
    feature = tfds.features.Image(shape=(4, 6, channels), encoding_format="png")
    write_dataset(tmp_path, examples, image=feature, label=TWO_CLASSES)
    images, labels = read(tmp_path)
    expected = np.repeat(black_or_white[..., np.newaxis], channels, axis=-1)
    np.testing.assert_array_equal(images, expected, strict=True)
    np.testing.assert_array_equal(labels, [1, 1, 1])


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_files_of_any_size_and_format_are_fitted(tmp_path, channels):
    files = [
        encoded(labelled_images(1, (*size, 3), seed)[0][0], file_format)
        for seed, (size, file_format) in enumerate([((9, 14), "PNG"), ((64, 40), "JPEG"), ((8, 8), "JPEG")])
    ]
    write_dataset(
        tmp_path, [{"image": io.BytesIO(file), "label": 0} for file in files], image=ANY_SIZE, label=TWO_CLASSES
    )
    images, _ = read(tmp_path, sides=(8, 8), channels=channels)
    for image, file in zip(images, files, strict=True):
        expected = np.asarray(fit_image(decode_image(io.BytesIO(file), channels or 3, at_least=(8, 8)), (8, 8)))
        np.testing.assert_array_equal(image, expected.reshape(8, 8, channels or 3), strict=True)


@pytest.mark.parametrize(("stored", "channels"), [(1, 0), (1, 3), (3, 0), (3, 1), (4, 3)])
def test_stored_tensors_are_fitted_and_converted(tmp_path, stored, channels):
    images, _ = labelled_images(2, (9, 14, stored), 5)
    write_dataset(tmp_path, [{"image": image} for image in images], image=tensor(9, 14, stored))
    mode = {1: "L", 3: "RGB"}[channels or stored]
    expected = [fit_image(PIL.Image.fromarray(image.squeeze()).convert(mode), (8, 8)) for image in images]
    actual, _ = read(tmp_path, sides=(8, 8), channels=channels)
    np.testing.assert_array_equal(actual.squeeze(), np.stack([np.asarray(image) for image in expected]))


def test_grey_tensors_become_colour_without_a_change_of_size(tmp_path):
    images, _ = labelled_images(2, (4, 6, 1), 5)
    write_dataset(tmp_path, [{"image": image} for image in images], image=tensor(4, 6, 1))
    np.testing.assert_array_equal(read(tmp_path, channels=3)[0], np.repeat(images, 3, axis=-1), strict=True)


def test_other_features_do_no_harm(tmp_path):
    images, _ = labelled_images(3, (4, 4, 3), 6)
    examples = [
        {
            "image": image,
            "label": i % 2,
            "caption": "a garment",
            "boxes": [{"box": tfds.features.BBox(0.0, 0.0, 1.0, 1.0), "depth": 0.5}] * i,
            "mask": io.BytesIO(encoded(image[..., 0])),
            "weights": np.zeros((2, i), np.float32),
        }
        for i, image in enumerate(images)
    ]
    write_dataset(
        tmp_path,
        examples,
        image=tensor(4, 4, 3),
        label=TWO_CLASSES,
        caption=tfds.features.Text(),
        boxes=tfds.features.Sequence({"box": tfds.features.BBoxFeature(), "depth": np.float32}),
        mask=tfds.features.Image(shape=(None, None, 1)),
        weights=tfds.features.Tensor(shape=(2, None), dtype=np.float32),
    )
    read_images, labels = read(tmp_path)
    np.testing.assert_array_equal(read_images, images, strict=True)
    np.testing.assert_array_equal(labels, [0, 1, 0])


@pytest.mark.parametrize(
    ("feature", "values", "names", "labels"),
    [
        (None, [None] * 3, ("image",), [0, 0, 0]),
        (tfds.features.Text(), ["x", "y", "x"], ("image",), [0, 0, 0]),
        (tfds.features.Tensor(shape=(2,), dtype=np.int64), [np.array([1, 2])] * 3, ("image",), [0, 0, 0]),
        (tfds.features.ClassLabel(num_classes=4), [3, 0, 1], ("0", "1", "2", "3"), [3, 0, 1]),
        (tfds.features.Scalar(np.int32), [2, 0, 2], ("0", "1", "2"), [2, 0, 2]),
    ],
    ids=["none", "text", "several", "unnamed", "integer"],
)
def test_classes_of_other_labels_than_names(tmp_path, feature, values, names, labels):
    label = {} if feature is None else {"label": feature}
    examples = [{"image": np.zeros((4, 4, 1), np.uint8), **dict.fromkeys(label, value)} for value in values]
    write_dataset(tmp_path, examples, image=tensor(4, 4, 1), **label)
    builder = open_prepared("garments", tmp_path)
    assert class_names(builder) == names
    np.testing.assert_array_equal(open_split(builder, "train", num_classes=len(names)).load()[1], labels)


def test_integers_that_are_no_classes_are_refused(tmp_path):
    examples = [{"image": np.zeros((4, 4, 1), np.uint8), "label": 2**40}]
    write_dataset(tmp_path, examples, image=tensor(4, 4, 1), label=tfds.features.Scalar(np.int64))
    with pytest.raises(UserError, match=f"label {2**40}, too large for a class: prepare it with a ClassLabel"):
        class_names(open_prepared("garments", tmp_path))


@pytest.mark.parametrize("name", ["absent", "", "two words", "../up", "name:latest"])
def test_unknown_name_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match="tfds build") as caught:
        open_prepared(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_folder_is_no_data_set(tmp_path):
    (tmp_path / "garments" / "2.1.0").mkdir(parents=True)
    with pytest.raises(UserError, match="no data set 'garments'"):
        open_prepared("garments", tmp_path)


@pytest.mark.parametrize(
    ("image", "feature", "options", "reason"),
    [
        (np.zeros((4, 4), np.float32), tfds.features.Tensor(shape=(4, 4), dtype=np.float32), {}, "must be uint8"),
        (np.zeros((4, 4, 4, 3), np.uint8), tensor(4, 4, 4, 3), {}, "must be uint8"),
        ("text", tfds.features.Text(), {}, "must be uint8"),
        (np.zeros((4, 4, 5), np.uint8), tensor(4, 4, 5), {"sides": (8, 8)}, "5 channels"),
    ],
)
def test_unsuitable_images_are_refused(tmp_path, image, feature, options, reason):
    write_dataset(tmp_path, [{"image": image}], image=feature)
    refused(tmp_path, reason, **options)


def test_a_data_set_without_images_is_refused(tmp_path):
    write_dataset(tmp_path, [{"label": 0}], label=TWO_CLASSES)
    refused(tmp_path, "has no image feature called image, only label")


@pytest.fixture
def prepared(tmp_path):
    """The folder of 40 images of the label 1."""
    images, _ = labelled_images(40, (16, 16, 3), 8)
    examples = [{"image": image, "label": 1} for image in images]
    return write_dataset(tmp_path, examples, image=tensor(16, 16, 3), label=TWO_CLASSES)


def test_missing_split_is_named(prepared, tmp_path):
    refused(tmp_path, "no test split, only train", "test")


@pytest.mark.parametrize(
    ("written", "instead", "reason"),
    [
        ('"array_record"', '"tfrecord"', "file_format=array_record"),
        ('"array_record"', '"parquet"', "file_format=array_record"),
        ('"40"', '"0"', "train split is empty"),
        ('"40"', '"41"', "image 40 of .* cannot be read"),
        ('"40"', '"99999999999"', "image 99999999998 of .* cannot be read"),
        ('"2.1.0"', '"two"', "description of data set garments .* cannot be read"),
    ],
)
def test_descriptions_of_what_cannot_be_read(prepared, tmp_path, written, instead, reason):
    description = prepared / "dataset_info.json"
    assert written in description.read_text()
    description.write_text(description.read_text().replace(written, instead))
    refused(tmp_path, reason)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", [b"", b'{"name": ', b"\xff\xfe\0"])
def test_a_damaged_description_is_one_line(prepared, tmp_path, file, content):
    (prepared / file).write_bytes(content)
    message = refused(tmp_path, "description of data set garments .* cannot be read")
    assert str(tmp_path) in message


def spellings(class_name: str) -> list[dict]:
    """Return a feature of a class in the forms that TFDS reads: its own, that of old versions, and one in the other."""
    old = {"type": class_name, "content": {"shape": [], "dtype": "uint8"}}
    return [
        {"pythonClassName": class_name, "tensor": {"shape": {}, "dtype": "uint8"}},
        {"python_class_name": class_name, "jsonFeature": {"json": "{}"}},
        {"pythonClassName": f"{CORE}.features_dict.FeaturesDict", "jsonFeature": {"json": json.dumps({"x": old})}},
        old,
    ]


CORE = "tensorflow_datasets.core.features"


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_no_module_that_a_description_names_is_imported(prepared, tmp_path, file, number, monkeypatch):
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    content = json.loads((prepared / file).read_text())
    feature = spellings("hostile.Feature")[number]
    if file == "features.json":
        content["featuresDict"]["features"]["label"] = feature
    else:
        content["features"] = feature
    (prepared / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match="description of data set garments") as caught:
        open_prepared("garments", tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()
    assert "hostile" not in sys.modules


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "garments-train.array_record-00000-of-00001"])
def test_a_named_pipe_is_refused_without_waiting(prepared, tmp_path, name):
    (prepared / name).unlink()
    os.mkfifo(prepared / name)
    refused(tmp_path, f"it is a named pipe, not a regular file: .*{name}")


def test_a_class_that_is_not_known_is_named(prepared, tmp_path):
    description = prepared / "features.json"
    description.write_text(description.read_text().replace(f"{CORE}.class_label_feature.ClassLabel", "a.package.Label"))
    refused(tmp_path, "cannot be used: it has a feature of the class a.package.Label, which is not TFDS's own")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-70_000]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"label", b"lapel")),
    ],
    ids=["missing", "empty", "truncated", "changed"],
)
def test_damaged_records_are_one_line(prepared, tmp_path, damage):
    damage(records_of(prepared))
    message = refused(tmp_path, "image 0 of the train split of data set garments/2.1.0 .* cannot be read")
    assert str(prepared) in message
    assert "prepare it again" in message


@pytest.mark.parametrize("file", ["features.json", "records"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_nothing_tells_to_delete_what_only_cannot_be_read(prepared, tmp_path, monkeypatch, file, number):
    reason = os.strerror(number)
    if file == "records":
        error = RuntimeError(f"open() failed: {reason}; opening {records_of(prepared)}")  # array_record's
        monkeypatch.setattr(
            "array_record.python.array_record_data_source.ArrayRecordDataSource.__getitems__", failing(error)
        )
    else:
        monkeypatch.setattr("json.loads", failing(OSError(number, reason, str(prepared / file))))
    message = refused(tmp_path, f"cannot be read .*{reason}")
    assert "prepare it again" not in message


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_damaged_image_is_named(tmp_path):
    good = encoded(np.zeros((4, 4, 3), np.uint8))
    files = [good, good, good[:40], good]
    write_dataset(
        tmp_path, [{"image": io.BytesIO(file), "label": 0} for file in files], image=ANY_SIZE, label=TWO_CLASSES
    )
    refused(tmp_path, "image 2 of the train split of data set garments/2.1.0 .* cannot be read")


def test_images_of_several_sizes_need_one(tmp_path):
    examples = [{"image": np.zeros((height, 4, 1), np.uint8)} for height in (3, 3, 5)]
    write_dataset(tmp_path, examples, image=tensor(None, 4, 1))
    refused(tmp_path, r"image 2 of .* is 5×4×1, but others are 3×4×1: bring all to one size with data\.image_size=SIZE")


def test_labels_beyond_the_classes_are_named(prepared, tmp_path):
    refused(tmp_path, "image 0 of .* has the label 1, out of range for the 1 classes 0 to 0", num_classes=1)
