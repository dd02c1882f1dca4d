import gzip

import numpy as np
import pytest
import tensorflow_datasets as tfds
from published_files import idx_bytes, labelled_images, stored, write_idx_files

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.builders.mnist import FashionMnist, Mnist
from hvq_jax.data.prepare import prepare
from hvq_jax.errors import UserError


def test_names_are_those_of_the_command_line():
    published = ["cifar10", "cifar100", "fashion_mnist", "fashion_mnist_mini", "mnist"]
    own = ["image_arrays", "image_folder", "image_table", "image_tar", "image_zip"]
    assert sorted(BUILDERS) == sorted(published + own)
    assert all(builder.name == name for name, builder in BUILDERS.items())


def test_stock_builders_keep_their_names():
    assert tfds.core.registered.imported_builder_cls("mnist") is not Mnist


@pytest.mark.parametrize("builder_class", [Mnist, FashionMnist])
@pytest.mark.parametrize("unpacked", [False, True])
def test_idx_files_are_stored_in_order(tmp_path, tiny_splits, builder_class, unpacked):
    manual_dir = tmp_path / "manual"
    write_idx_files(manual_dir, tiny_splits)
    if unpacked:
        for path in list(manual_dir.iterdir()):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    builder = prepare(builder_class, data_dir=tmp_path / "tfds", manual_dir=manual_dir)
    for split, (images, labels) in tiny_splits.items():
        read_images, read_labels = stored(builder, split)
        np.testing.assert_array_equal(read_images, images[..., np.newaxis], strict=True)
        np.testing.assert_array_equal(read_labels, labels)


def test_idx_files_are_downloaded(tmp_path, tiny_splits, monkeypatch):
    digests = write_idx_files(tmp_path / "site", tiny_splits)
    monkeypatch.setattr(Mnist, "BASE_URL", (tmp_path / "site").as_uri() + "/")
    monkeypatch.setattr(Mnist, "SHA256", digests)
    builder = prepare(Mnist, data_dir=tmp_path / "tfds")
    np.testing.assert_array_equal(stored(builder, "test")[0][..., 0], tiny_splits["test"][0])


def test_failed_download_prepares_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Mnist, "BASE_URL", (tmp_path / "absent").as_uri() + "/")
    with pytest.raises(UserError, match="manual_dir=DIR"):
        prepare(Mnist, data_dir=tmp_path / "tfds")
    assert not [path for path in (tmp_path / "tfds" / "mnist").iterdir() if path.is_dir()]


def test_missing_file_is_named(tmp_path, tiny_splits):
    write_idx_files(tmp_path / "manual", tiny_splits)
    (tmp_path / "manual" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz") as caught:
        prepare(FashionMnist, data_dir=tmp_path / "tfds", manual_dir=tmp_path / "manual")
    assert str(tmp_path / "manual") in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (labelled_images(6, (28, 27), 0), r"items of shape \(28, 27\)"),
        ((labelled_images(6, (28, 28), 0)[0], np.zeros(5, np.uint8)), "6 images"),
        ((labelled_images(6, (28, 28), 0)[0], np.full(6, 10, np.uint8)), "label 10"),
        ((np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.uint8)), "no images"),
    ],
)
def test_inconsistent_files_are_refused(tmp_path, tiny_splits, arrays, reason):
    write_idx_files(tmp_path / "manual", {**tiny_splits, "train": arrays})
    with pytest.raises(UserError, match=reason):
        prepare(FashionMnist, data_dir=tmp_path / "tfds", manual_dir=tmp_path / "manual")


def test_damaged_file_leaves_nothing_behind(tmp_path, tiny_splits):
    write_idx_files(tmp_path / "manual", tiny_splits)
    content = idx_bytes(tiny_splits["train"][0])[:-1]
    (tmp_path / "manual" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match="damaged"):
        prepare(FashionMnist, data_dir=tmp_path / "tfds", manual_dir=tmp_path / "manual")
    assert not list((tmp_path / "tfds").glob("*/incomplete*"))
