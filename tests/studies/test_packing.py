"""Packed results are the same bytes when they are unpacked."""

import subprocess

import numpy as np
import pytest

from hvq_jax.errors import UserError
from studies import packing
from studies.packing import pack


@pytest.fixture
def study(tmp_path):
    """A study's folder, with results of 3,000 and 0 bytes."""
    results = tmp_path / "report" / "results"
    results.mkdir(parents=True)
    (results / "a.npz").write_bytes(np.random.default_rng(0).bytes(3000))
    (results / "b.json").write_bytes(b"")
    (results / ".c.npz.tmp").write_bytes(b"half of it")
    return tmp_path / "report"


def unpack(folder, study):
    """Unpack as documented."""
    subprocess.run(f"cat {folder}/report.tar.* | tar -x -C {study}", shell=True, check=True)


@pytest.mark.parametrize("file_bytes", [1280, 2**20])
def test_what_is_unpacked_is_what_was_packed(study, tmp_path, monkeypatch, file_bytes):
    monkeypatch.setattr(packing, "FILE_BYTES", file_bytes)
    packed, copy = tmp_path / "packed", tmp_path / "copy"
    packed.mkdir()
    (packed / "report.tar.7").write_bytes(b"of an earlier time")
    files = pack(study / "results", study, packed)
    assert sorted(packed.iterdir()) == files
    assert len(files) == (8 if file_bytes == 1280 else 1)
    assert all(0 < file.stat().st_size <= file_bytes for file in files)
    copy.mkdir()
    unpack(packed, copy)
    assert sorted(path.name for path in (copy / "results").iterdir()) == ["a.npz", "b.json"]
    for name in ("a.npz", "b.json"):
        assert (copy / "results" / name).read_bytes() == (study / "results" / name).read_bytes()


def test_what_does_not_fit_is_refused(study, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "FILE_BYTES", 1000)
    with pytest.raises(UserError, match="do not fit into 8 files"):
        pack(study / "results", study, tmp_path / "packed")
