"""Opening a run clears what killed runs left half-written in its folder, and nothing else."""

import dataclasses
import os

import numpy as np

from hvq_jax import layout
from hvq_jax.data.datasets import ImageDataset, Split
from hvq_jax.devices.preemption import Preemption
from hvq_jax.files import whole_file
from hvq_jax.quantizers.options import LatentOptions
from hvq_jax.runs import open as opening
from hvq_jax.runs.options import RunOptions


def test_what_killed_runs_left_is_removed(tmp_path, monkeypatch):
    split = Split(np.zeros((128, 8, 8, 1), np.uint8), np.zeros(128, np.int32))
    monkeypatch.setattr(opening, "open_dataset", lambda _: ImageDataset(split, split, split, ("one",)))
    options = dataclasses.replace(
        RunOptions(), parallel="jit", latent=LatentOptions(num_codes=4, num_frequent=2, dim=8)
    )
    for name in layout.WHOLE:
        with whole_file(tmp_path / name) as unfinished:
            os.link(unfinished, tmp_path / "left")
        os.rename(tmp_path / "left", unfinished)
        (tmp_path / name).unlink()
    assert len(os.listdir(tmp_path)) == len(layout.WHOLE)
    (tmp_path / ".notes.txt.tmp").write_text("mine")
    with opening.open_run(options, str(tmp_path), Preemption()):
        assert sorted(os.listdir(tmp_path)) == sorted(
            [".lock", ".notes.txt.tmp", layout.CONFIG, layout.DATASET, layout.FORMAT_FILE]
        )
    assert (tmp_path / ".notes.txt.tmp").read_text() == "mine"
