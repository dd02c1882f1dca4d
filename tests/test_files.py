"""Reading of files that a user names, regular files only; writing files and folders whole or not at all."""

import contextlib
import errno
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from hvq_jax.errors import UserError
from hvq_jax.files import (
    check_regular_files,
    full_path,
    home_folder,
    open_regular,
    read_arrays,
    read_json,
    remove_unfinished,
    shows_damage,
    whole_file,
    whole_folder,
)


def test_a_regular_file_is_read_through_links(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def special_files(folder: Path) -> dict[str, Path]:
    """Return a path of each kind that is no regular file; without care, opening most of them waits for ever."""
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "pipe")
    (folder / "folder").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    with tempfile.TemporaryDirectory() as short:  # the path of a socket has at most 107 characters
        listener.bind(f"{short}/s")
        os.rename(f"{short}/s", folder / "socket")
    listener.close()
    return {
        "a named pipe": folder / "pipe",
        "a folder": folder / "folder",
        "a socket": folder / "socket",
        "a device": Path("/dev/zero"),
    }


def test_other_files_are_refused_without_waiting(tmp_path):
    paths = special_files(tmp_path)
    for kind, path in [*paths.items(), ("a named pipe", tmp_path / "link")]:
        with pytest.raises(OSError, match=f"it is {kind}, not a regular file"):
            open_regular(path)
        for read in (read_arrays, partial(read_json, form=dict[str, int])):
            with pytest.raises(UserError, match=f"{path} cannot be read.*{kind}"):
                read(path, advice="do without it")


def test_a_named_pipe_is_found_before_a_library_waits_for_it(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    (tmp_path / "a" / "link").symlink_to("nowhere")
    check_regular_files(tmp_path)
    os.mkfifo(tmp_path / "a" / "b" / "pipe")
    with pytest.raises(OSError, match=r"it is a named pipe, not a regular file: .*a/b/pipe"):
        check_regular_files(tmp_path)


def test_a_named_pipe_in_place_of_a_lock_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".a.tmp")
    with pytest.raises(UserError, match=r"cannot write .*: it is a named pipe"), whole_file(tmp_path / "a"):
        pass


def test_no_descriptor_is_left_open(tmp_path):
    (tmp_path / "file").touch()
    before = len(os.listdir("/proc/self/fd"))
    special_files(tmp_path)
    for path in tmp_path.iterdir():
        try:
            open_regular(path).close()
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_only_unreadable_is_not_to_be_deleted(tmp_path, monkeypatch):
    (tmp_path / "a.npz").touch()

    def refusing(*arguments, **options):
        raise PermissionError(13, "Permission denied", "a.npz")

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(UserError, match=r"a\.npz cannot be read: Permission denied$"):
        read_arrays(tmp_path / "a.npz")


def test_a_home_folder_that_is_not_there_is_not_made_up(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder() == tmp_path
    assert full_path("~/runs") == tmp_path / "runs"

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    assert home_folder() is None
    with pytest.raises(UserError, match="~/runs: there is no such home folder"):
        full_path("~/runs")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ESTALE])
def test_errors_of_the_system_show_no_damage_however_they_are_wrapped(number):
    error = OSError(number, os.strerror(number), "a.png")
    assert not shows_damage(error)
    assert not shows_damage(RuntimeError(f"open() failed: {os.strerror(number)}; opening a.array_record"))
    wrapped = ValueError("cannot be decoded")
    wrapped.__cause__ = error
    assert not shows_damage(wrapped)


@pytest.mark.parametrize("error", [MemoryError(), ImportError("libz.so"), NameError("np")])
def test_errors_of_the_program_show_no_damage(error):
    assert not shows_damage(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Expecting value: line 1 column 1"),
        KeyError("features"),
        OSError("image file is truncated (3 bytes not processed)"),  # Pillow's, which has no number
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
        RuntimeError("Corrupted Riegeli/records file: chunk data hash mismatch"),
    ],
)
def test_errors_of_the_format_may_show_damage(error):
    assert shows_damage(error)


def fill(unfinished: Path, text: str) -> None:
    """Write `text` to a file, or to the file "inside" of a folder."""
    (unfinished / "inside" if unfinished.is_dir() else unfinished).write_text(text)


def content_of(path: Path) -> str:
    return (path / "inside" if path.is_dir() else path).read_text()


TEXT = """
import pathlib, sys
from hvq_jax.files import write_text
write_text(pathlib.Path(sys.argv[1]), "70 \u00b1 1")
"""


def test_text_is_utf8_whatever_the_locale_is(tmp_path):
    path = tmp_path / "a.html"
    of_locale = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning:hvq_jax.files"]
    subprocess.run([sys.executable, *of_locale, "-c", TEXT, path], check=True, cwd=Path(__file__).parents[1])
    assert path.read_bytes() == "70 ± 1".encode()


WHOLE = pytest.mark.parametrize("whole", [whole_file, whole_folder])


@WHOLE
def test_what_is_written_appears_at_the_end_and_nothing_else_remains(tmp_path, whole):
    with whole(tmp_path / "a") as unfinished:
        fill(unfinished, "content")
        assert not (tmp_path / "a").exists()
    assert content_of(tmp_path / "a") == "content"
    assert os.listdir(tmp_path) == ["a"]


@WHOLE
@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), ValueError("another"), KeyboardInterrupt()]
)
def test_where_writing_fails_nothing_remains(tmp_path, whole, failure):
    expected = UserError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as caught, whole(tmp_path / "a") as unfinished:  # noqa: PT012
        fill(unfinished, "half")
        raise failure
    assert not isinstance(failure, OSError) or str(caught.value) == f"cannot write {tmp_path / 'a'}: {failure.strerror}"
    assert not os.listdir(tmp_path)


@WHOLE
def test_what_a_killed_process_left_is_replaced(tmp_path, whole):
    (tmp_path / "here").mkdir()
    with whole(tmp_path / "here" / "a") as unfinished:
        fill(unfinished, "half of a longer content")
        if unfinished.is_dir():
            (unfinished / "another").touch()
        left = shutil.copytree(tmp_path / "here", tmp_path / "left")  # as it would be if the process were killed now
    assert os.listdir(left) == [".a.tmp"]
    with whole(left / "a") as unfinished:
        fill(unfinished, "content")
    assert content_of(left / "a") == "content"
    assert os.listdir(left) == ["a"]
    assert not (left / "a" / "another").exists()


@WHOLE
def test_a_second_writer_is_refused_and_the_first_one_ends_well(tmp_path, whole):
    with whole(tmp_path / "a") as unfinished:
        fill(unfinished, "first")
        with (
            pytest.raises(UserError, match=r"cannot write .*/a: another process is writing it$"),
            whole(tmp_path / "a"),
        ):
            pytest.fail("both write")
    assert content_of(tmp_path / "a") == "first"


def test_a_folder_replaces_an_empty_one_only(tmp_path):
    (tmp_path / "a").mkdir()
    for content in ("first", "second"):
        with contextlib.suppress(UserError), whole_folder(tmp_path / "a") as folder:
            fill(folder, content)
    assert content_of(tmp_path / "a") == "first"
    assert os.listdir(tmp_path) == ["a"]


def test_only_what_is_named_is_removed(tmp_path):
    for name in (".a.npz.tmp", ".b.npz.tmp", "a.npz"):
        (tmp_path / name).touch()
    remove_unfinished([tmp_path / "a.npz", tmp_path / "never_written"])
    assert sorted(os.listdir(tmp_path)) == [".b.npz.tmp", "a.npz"]


@pytest.mark.parametrize("name", ["stat", "open", "fstat"])
def test_a_stop_while_a_file_is_opened_stays_a_stop_and_closes_only_that_file(tmp_path, monkeypatch, name):
    (tmp_path / "a").write_bytes(b"a")
    before = len(os.listdir("/proc/self/fd"))
    called = getattr(os, name)

    def stop(*arguments, **options):
        result = called(*arguments, **options)
        if name == "open":
            os.close(result)  # as where the signal comes before the number is returned
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, name, stop)
        with pytest.raises(KeyboardInterrupt):
            open_regular(tmp_path / "a")
    assert len(os.listdir("/proc/self/fd")) == before
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"a"
