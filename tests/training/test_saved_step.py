"""What is damage, and what is not."""

import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import orbax.checkpoint as ocp
import pytest

from hvq_jax.errors import UserError
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.saved_step import read_state
from tests.training.saved_states import LIKE, files_of, step_of

NOBODY = 65534


@pytest.fixture
def folder(three_steps, tmp_path):
    return shutil.copytree(three_steps, tmp_path / "checkpoints")


def restore_both(folder):
    checkpoints = Checkpoints(folder, objective="mse")
    try:
        return step_of(checkpoints.restore_latest(LIKE)), step_of(checkpoints.restore_best(LIKE))
    finally:
        checkpoints.close()


FAILURES = {
    "permission": PermissionError(errno.EACCES, "Permission denied", "manifest.ocdbt"),
    "disk": OSError(errno.EIO, "Input/output error"),
    "files": OSError(errno.EMFILE, "Too many open files"),
    "memory": MemoryError(),
    "device memory": RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1234 bytes"),
    "tensorstore": ValueError('UNAVAILABLE: Error opening "zarr" driver'),
    "import": ImportError("libssl.so.3: cannot open shared object file"),
    "name": NameError("name 'tensorstore' is not defined"),
    "attribute": AttributeError("module 'jax' has no attribute 'tree'"),
    "loop": RuntimeError("Event loop is closed"),
    "absent": FileNotFoundError(errno.ENOENT, "No such file or directory", "/usr/lib/libz.so"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_with_whole_files_moves_nothing_and_is_one_line(folder, monkeypatch, failure):
    before = files_of(folder)

    def fail(*_, **__):
        raise FAILURES[failure]

    with monkeypatch.context() as patch:
        patch.setattr(ocp.StandardCheckpointHandler, "restore", fail)
        with pytest.raises(UserError, match="cannot be read") as error:
            restore_both(folder)
    assert str(folder / "3") in str(error.value)
    assert type(FAILURES[failure]).__name__ in str(error.value) or FAILURES[failure].strerror in str(error.value)
    assert "\n" not in str(error.value)
    assert files_of(folder) == before
    assert restore_both(folder) == (3, 2)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_of_a_moment_is_none(folder, monkeypatch, failure):
    restore, failures = ocp.StandardCheckpointHandler.restore, [FAILURES[failure]]

    def fail_once(*arguments, **options):
        if failures:
            raise failures.pop()
        return restore(*arguments, **options)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fail_once)
    assert restore_both(folder) == (3, 2)


@pytest.mark.parametrize("name", ["SHA256SUMS", "digests/metadata", "metrics/metrics", "_CHECKPOINT_METADATA"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_a_file_that_cannot_be_opened_is_no_damage(folder, monkeypatch, name, number):
    before = files_of(folder)

    def failing(function):
        def call(path, *arguments, **options):
            if isinstance(path, (str, Path)) and str(path) == str(folder / "3" / name):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("io.open", failing(open))
        patch.setattr("os.stat", failing(os.stat))
        patch.setattr("os.open", failing(os.open))
        with pytest.raises(UserError, match=os.strerror(number)):
            restore_both(folder)
    assert files_of(folder) == before
    assert restore_both(folder) == (3, 2)


@pytest.fixture
def unprivileged():
    """A folder in which file permissions count, as they do not for root."""
    folder = Path(tempfile.mkdtemp(prefix="hvq_jax_permissions_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("closed", ["3", "3/state", "3/state/manifest.ocdbt", "3/digests", "3/metrics/metrics", "."])
def test_without_permission_to_read_nothing_is_moved(unprivileged, three_steps, closed):
    folder = shutil.copytree(three_steps, unprivileged / "checkpoints")
    before = files_of(folder)
    mode = (folder / closed).stat().st_mode
    root = os.geteuid() == 0
    if root:
        for path in (unprivileged, *unprivileged.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    (folder / closed).chmod(0)
    try:
        if root:
            os.seteuid(NOBODY)
        with pytest.raises((UserError, PermissionError), match="Permission denied"):
            restore_both(folder)
    finally:
        if root:
            os.seteuid(0)
        (folder / closed).chmod(mode)
    assert files_of(folder) == before
    assert restore_both(folder) == (3, 2)


def test_the_sums_are_those_of_sha256sum(folder):
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder / "3", check=True)
    listed = {line.split("  ")[1] for line in (folder / "3" / "SHA256SUMS").read_text().splitlines()}
    assert {path.relative_to(folder / "3").as_posix() for path in (folder / "3" / "state").rglob("*.ocdbt")} < listed


def test_a_state_that_can_be_read_is_used_though_another_file_is_damaged(folder):
    (folder / "3" / "state" / "commit_success.txt").unlink()
    assert step_of(read_state(folder / "3", LIKE)) == 3


@pytest.mark.parametrize("name", ["digests/metadata", "metrics/metrics", "state/manifest.ocdbt", "SHA256SUMS"])
def test_a_named_pipe_in_place_of_a_file_is_not_waited_for(folder, name):
    for step in "23":
        (folder / step / name).unlink()
        os.mkfifo(folder / step / name)
    with pytest.raises(UserError, match=f"cannot be read .*it is a named pipe.*{name}.*left as it is"):
        restore_both(folder)
