import concurrent.futures
import grp
import hashlib
import multiprocessing
import os
import pathlib
import pwd
import signal
import tempfile

import pytest
import tensorflow_datasets as tfds
from published_files import stored

from hvq_jax.data.builders.arrays import ArraySplit
from hvq_jax.data.builders.mnist import FashionMnist
from hvq_jax.data.folders import data_folder
from hvq_jax.data.open_tfds import open_prepared
from hvq_jax.data.prepare import prepare
from hvq_jax.errors import UserError

SPAWN = multiprocessing.get_context("spawn")


def digests(folder: pathlib.Path) -> dict[str, str]:
    """Return the SHA-256 of the records and descriptions of a prepared data set, by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def wait_for_all(barrier) -> None:
    barrier.wait()


def prepare_and_count(data_dir: pathlib.Path, manual_dir: pathlib.Path) -> int:
    builder = prepare(FashionMnist, data_dir=data_dir, manual_dir=manual_dir)
    return len(stored(builder, "train")[0])


def prepare_and_die(data_dir: pathlib.Path, manual_dir: pathlib.Path) -> None:
    def first_image(split):
        yield split.images[0], 0
        os.kill(os.getpid(), signal.SIGKILL)

    ArraySplit.__iter__ = first_image
    prepare(FashionMnist, data_dir=data_dir, manual_dir=manual_dir)


def test_prepared_twice_is_the_same_and_a_second_call_writes_nothing(tmp_path, tiny_manual_dir):
    folders = [
        pathlib.Path(prepare(FashionMnist, data_dir=tmp_path / name, manual_dir=tiny_manual_dir).data_path)
        for name in ("first", "second")
    ]
    assert digests(folders[0]) == digests(folders[1])
    times = {path.name: path.stat().st_mtime_ns for path in folders[0].iterdir()}
    prepare(FashionMnist, data_dir=tmp_path / "first", manual_dir=tmp_path / "absent")
    assert times == {path.name: path.stat().st_mtime_ns for path in folders[0].iterdir()}


def test_no_temporary_files_are_left(tmp_path, tiny_manual_dir, monkeypatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    builder = prepare(FashionMnist, data_dir=tmp_path / "data", manual_dir=tiny_manual_dir)
    prepare(FashionMnist, data_dir=tmp_path / "data")
    open_prepared(builder.name, tmp_path / "data")
    assert not list(temporary.iterdir())


def nobody(number: int):
    raise KeyError(f"getpwuid(): uid not found: {number}")


def test_neither_user_nor_group_nor_home_needs_an_entry(tmp_path, tiny_manual_dir, monkeypatch):
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(grp, "getgrgid", nobody)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", "~/tensorflow_datasets")  # as TFDS sets it without a home
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    builder = prepare(FashionMnist, manual_dir=tiny_manual_dir)
    assert pathlib.Path(builder.data_path).is_relative_to(tmp_path / "tmp" / f"hvq_jax-{os.getuid()}")
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
    assert pwd.getpwuid is nobody
    assert len(stored(prepare(FashionMnist), "train")[0]) == 30


def test_a_temporary_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", "~/tensorflow_datasets")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"hvq_jax-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"belongs to another user: set data\.data_dir=DIR"):
        data_folder(None)
    with pytest.raises(UserError, match="no such home folder"):
        data_folder("~/data")


def test_two_processes_at_once_both_succeed(tmp_path, tiny_manual_dir):
    with concurrent.futures.ProcessPoolExecutor(
        2, mp_context=SPAWN, initializer=wait_for_all, initargs=(SPAWN.Barrier(2),)
    ) as pool:
        counts = pool.map(prepare_and_count, [tmp_path] * 2, [tiny_manual_dir] * 2)
        assert list(counts) == [30, 30]


def test_what_a_killed_process_left_is_cleared(tmp_path, tiny_manual_dir):
    process = SPAWN.Process(target=prepare_and_die, args=(tmp_path, tiny_manual_dir))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / "fashion_mnist").glob("incomplete.*"))
    assert prepare_and_count(tmp_path, tiny_manual_dir) == 30
    assert not list((tmp_path / "fashion_mnist").glob("incomplete.*"))


def test_impossible_data_dir_is_named(tmp_path, tiny_manual_dir):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data_dir=DIR") as caught:
        prepare(FashionMnist, data_dir=tmp_path / "file", manual_dir=tiny_manual_dir)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b'{"name": "fash', b"{}", None])
def test_a_damaged_description_is_one_line(tmp_path, tiny_manual_dir, content):
    builder = prepare(FashionMnist, data_dir=tmp_path, manual_dir=tiny_manual_dir)
    description = pathlib.Path(builder.data_path) / "dataset_info.json"
    description.unlink() if content is None else description.write_bytes(content)
    reason = f"description of .*fashion_mnist in {tmp_path}|{description.parent} lacks the description"
    with pytest.raises(UserError, match=reason) as caught:
        prepare(FashionMnist, data_dir=tmp_path, manual_dir=tiny_manual_dir)
    assert "delete" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["features.json", "label.labels.txt", "fashion_mnist-train.array_record-00000-of-00001"]
)
def test_a_named_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, tiny_manual_dir, name):
    folder = pathlib.Path(prepare(FashionMnist, data_dir=tmp_path, manual_dir=tiny_manual_dir).data_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"it is a named pipe, not a regular file: .*{name}"):
        prepare(FashionMnist, data_dir=tmp_path, manual_dir=tiny_manual_dir)
