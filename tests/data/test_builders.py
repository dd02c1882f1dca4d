import gzip

import numpy as np
import pytest
import tensorflow_datasets as tfds
from published_files import idx_bytes, labelled_images, write_idx_files, write_tar

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.builders.cifar10 import Cifar10
from hvq_jax.data.builders.mnist import FashionMnist, Mnist
from hvq_jax.data.prepare import prepare
from hvq_jax.data.prepared import read_split
from hvq_jax.errors import UserError

CIFAR_SHAPE = (32, 32, 3)


def test_names_are_those_of_the_command_line():
    assert sorted(BUILDERS) == ["cifar10", "fashion_mnist", "fashion_mnist_mini", "mnist"]
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
        read_images, read_labels = read_split(builder, split)
        np.testing.assert_array_equal(read_images, images[..., np.newaxis], strict=True)
        np.testing.assert_array_equal(read_labels, labels.astype(np.int32), strict=True)


def test_idx_files_are_downloaded(tmp_path, tiny_splits, monkeypatch):
    digests = write_idx_files(tmp_path / "site", tiny_splits)
    monkeypatch.setattr(Mnist, "BASE_URL", (tmp_path / "site").as_uri() + "/")
    monkeypatch.setattr(Mnist, "SHA256", digests)
    builder = prepare(Mnist, data_dir=tmp_path / "tfds")
    np.testing.assert_array_equal(read_split(builder, "test")[0][..., 0], tiny_splits["test"][0])


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
        (labelled_images(6, (28, 27), 0), r"\(28, 27, 1\)"),
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


def cifar_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels[:, np.newaxis], planes], axis=1).tobytes()


@pytest.fixture
def cifar_members() -> dict[str, bytes]:
    batches = [labelled_images(2, CIFAR_SHAPE, seed) for seed in range(6)]
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    return {f"cifar-10-batches-bin/{name}": cifar_batch(*batch) for name, batch in zip(names, batches, strict=True)}


def test_cifar10_batches_are_stored_in_order(tmp_path, cifar_members):
    escape = {"../escaped.bin": b"outside"}
    write_tar(tmp_path / "cifar-10-binary.tar.gz", escape | cifar_members)
    builder = prepare(Cifar10, data_dir=tmp_path / "data" / "tfds", manual_dir=tmp_path)
    images, labels = read_split(builder, "train")
    expected = [labelled_images(2, CIFAR_SHAPE, seed)[0] for seed in range(5)]
    np.testing.assert_array_equal(images, np.concatenate(expected), strict=True)
    np.testing.assert_array_equal(labels, [0, 1] * 5)
    np.testing.assert_array_equal(read_split(builder, "test")[0], labelled_images(2, CIFAR_SHAPE, 5)[0])
    assert not list(tmp_path.rglob("escaped.bin"))


def test_cifar10_refuses_other_archives(tmp_path, cifar_members):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    name = "cifar-10-batches-bin/data_batch_3.bin"
    without = {key: value for key, value in cifar_members.items() if key != name}
    cut = cifar_members | {name: cifar_members[name][:-1]}
    for members, reason in ((without, "data_batch_3"), (cut, "multiple of 3073")):
        write_tar(archive, members)
        with pytest.raises(UserError, match=reason):
            prepare(Cifar10, data_dir=tmp_path / "tfds", manual_dir=tmp_path)
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(UserError, match="cannot read") as caught:
        prepare(Cifar10, data_dir=tmp_path / "tfds", manual_dir=tmp_path)
    assert str(archive) in str(caught.value)
