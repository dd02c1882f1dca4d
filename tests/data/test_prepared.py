import io

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from published_files import labelled_images

from hvq_jax.data.prepared import open_prepared, read_split
from hvq_jax.errors import UserError


def png(image: np.ndarray, mode: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).convert(mode).save(file, "PNG")
    return file.getvalue()


def write_dataset(folder, examples, *, image_feature, label_feature=None):
    """Prepares a data set as TFDS itself would, in a folder that it then finds."""
    features = tfds.features.FeaturesDict(
        {
            "image": image_feature,
            "label": label_feature or tfds.features.ClassLabel(names=["a", "b"]),
        }
    )

    class Garments(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.1.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(examples)

    builder = Garments(data_dir=folder, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


def tensor_examples(*shapes):
    return [{"image": np.zeros(shape, np.uint8), "label": 0} for shape in shapes]


@pytest.mark.parametrize("name", ["garments", "garments:2.1.0"])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_tensors_are_read_without_the_code_that_wrote_them(tmp_path, name, shape):
    images, labels = labelled_images(1100, shape, 3)  # more than are read at once
    examples = [{"image": image, "label": int(label) % 2} for image, label in zip(images, labels, strict=True)]
    feature = tfds.features.Tensor(shape=shape, dtype=np.uint8)
    write_dataset(tmp_path, examples, image_feature=feature)
    read_images, read_labels = read_split(open_prepared(name, tmp_path), "train")
    np.testing.assert_array_equal(read_images, images.reshape(1100, 4, 6, -1), strict=True)
    np.testing.assert_array_equal(read_labels, labels.astype(np.int32) % 2, strict=True)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_images_get_the_declared_channels(tmp_path, mode, channels):
    black_or_white = (labelled_images(3, (4, 6), 4)[0] > 127) * np.uint8(255)  # exact in any mode
    examples = [{"image": png(image, mode), "label": 1} for image in black_or_white]
    feature = tfds.features.Image(shape=(4, 6, channels), encoding_format="png")
    write_dataset(tmp_path, examples, image_feature=feature)
    images, labels = read_split(open_prepared("garments", tmp_path), "train")
    expected = np.repeat(black_or_white[..., np.newaxis], channels, axis=-1)
    np.testing.assert_array_equal(images, expected, strict=True)
    np.testing.assert_array_equal(labels, [1, 1, 1])


@pytest.mark.parametrize("name", ["absent", "", "two words", "../up", "name:latest"])
def test_unknown_name_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match="tfds build") as caught:
        open_prepared(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


UINT8 = tfds.features.Tensor(shape=(None, 4, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"examples": tensor_examples((3, 4, 1), (4, 4, 1)), "image_feature": UINT8}, "shapes"),
        (
            {
                "examples": [{"image": np.zeros(4, np.float32), "label": 0}],
                "image_feature": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            },
            "uint8",
        ),
        (
            {
                "examples": tensor_examples((4, 4, 1)),
                "image_feature": UINT8,
                "label_feature": tfds.features.Scalar(np.int64),
            },
            "ClassLabel",
        ),
    ],
)
def test_unsuitable_data_sets_are_refused(tmp_path, arguments, reason):
    write_dataset(tmp_path, **arguments)
    with pytest.raises(UserError, match=reason):
        read_split(open_prepared("garments", tmp_path), "train")


def test_missing_split_is_named(tmp_path):
    write_dataset(tmp_path, tensor_examples((4, 4, 1)), image_feature=UINT8)
    with pytest.raises(UserError, match="no test split, only train"):
        read_split(open_prepared("garments", tmp_path), "test")


@pytest.mark.parametrize(
    ("written", "instead", "reason"),
    [
        ('"array_record"', '"tfrecord"', "file_format=array_record"),
        ('"3"', '"0"', "train split is empty"),
    ],
)
def test_descriptions_of_what_cannot_be_read(tmp_path, written, instead, reason):
    write_dataset(tmp_path, tensor_examples(*[(4, 4, 1)] * 3), image_feature=UINT8)
    description = tmp_path / "garments" / "2.1.0" / "dataset_info.json"
    assert written in description.read_text()
    description.write_text(description.read_text().replace(written, instead))
    with pytest.raises(UserError, match=reason):
        read_split(open_prepared("garments", tmp_path), "train")


def test_missing_records_are_one_line(tmp_path):
    write_dataset(tmp_path, tensor_examples((4, 4, 1)), image_feature=UINT8)
    (records,) = (tmp_path / "garments" / "2.1.0").glob("*.array_record-*")
    records.unlink()
    with pytest.raises(UserError, match="damaged") as caught:
        read_split(open_prepared("garments", tmp_path), "train")
    assert "\n" not in str(caught.value)


def test_empty_folder_is_no_data_set(tmp_path):
    (tmp_path / "garments" / "2.1.0").mkdir(parents=True)
    with pytest.raises(UserError, match="no data set 'garments'"):
        open_prepared("garments", tmp_path)
