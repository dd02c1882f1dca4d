"""Sizes that are not chosen follow the data set; those that are chosen are kept or refused."""

import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from hvq_jax.data.datasets import ImageDataset, Split, load_dataset
from hvq_jax.data.options import DataOptions
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.runs import open as opening
from hvq_jax.runs.open import open_run
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.sizes import with_batches_of_at_most, with_sizes

BOTH = ("autoencoder", "prior")
DEFAULT = RunOptions().autoencoder.batch_size


def with_batch(stage, batch_size):
    options = RunOptions()
    return dataclasses.replace(options, **{stage: dataclasses.replace(getattr(options, stage), batch_size=batch_size)})


@hypothesis.given(st.integers(1, 10**6))
def test_a_tenth_is_held_out_but_no_more_than_5000(count):
    size = DataOptions().held_out_size("validation", count)
    assert 1 <= size <= 5000
    assert size == 1 or size <= count / 10
    assert size == 5000 or 10 * (size + 1) > count
    assert DataOptions(validation_size=7).held_out_size("validation", count) == 7


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(st.integers(1, 2 * DEFAULT), st.sampled_from([1, 2, 4, 8]))
def test_default_batches_are_as_large_as_the_data_set_and_the_devices_allow(count, num_devices):
    if count < num_devices:
        with pytest.raises(ArgumentError, match=f"there are only {count} training images"):
            with_batches_of_at_most(count, RunOptions(), BOTH, num_devices)
        return
    fitted = with_batches_of_at_most(count, RunOptions(), BOTH, num_devices)
    for stage in BOTH:
        size = getattr(fitted, stage).batch_size
        assert size % num_devices == 0
        assert size <= min(count, DEFAULT) < size + num_devices


def test_chosen_batches_that_are_too_large_are_refused_together():
    chosen = dataclasses.replace(with_batch("autoencoder", 200), prior=with_batch("prior", 300).prior)
    with pytest.raises(
        ArgumentError,
        match=r"autoencoder\.batch_size=200: there are only 96 training images, too few for prior\.batch_size=300 too",
    ):
        with_batches_of_at_most(96, chosen, BOTH, 1)
    assert with_batches_of_at_most(200, chosen, ("autoencoder",), 1) == chosen
    assert with_batches_of_at_most(300, chosen, BOTH, 1) == chosen


def test_sizes_that_are_chosen_are_kept():
    options = RunOptions(data=DataOptions(test_size=7))
    found = with_sizes(options, {"validation": 3, "test": 4}).data
    assert (found.validation_size, found.test_size) == (3, 7)


def dataset(count, carved=()):
    random = np.random.default_rng(0)
    splits = [
        Split(random.integers(0, 256, (size, 8, 8, 1), np.uint8), np.zeros(size, np.int32)) for size in (count, 12, 12)
    ]
    return ImageDataset(*splits, ("one",), carved=carved)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Return a function that opens a run on a data set without reading one."""

    def open_with(data, options):
        given = []

        def open_dataset(data_options):
            given.append(data_options)
            return data

        monkeypatch.setattr(opening, "open_dataset", open_dataset)
        with open_run(options, str(tmp_path / "run"), Preemption()) as run:
            return run, given[0]

    return open_with


def test_a_small_data_set_is_trained_on_without_choosing_sizes(opened, capsys, tmp_path):
    run, _ = opened(dataset(97, ("validation", "test")), RunOptions(parallel="jit"))
    said = capsys.readouterr().out
    assert "97 images to train on, 12 for validation, 12 for testing; 8×8×1, 1 class; validation and test taken" in said
    assert "autoencoder: batches of 97, since there are only 97 to train on" in said
    assert (run.options.autoencoder.batch_size, run.options.prior.batch_size) == (97, 97)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["data"]["validation_size"] == stored["data"]["test_size"] == 12
    assert stored["autoencoder"]["batch_size"] == DEFAULT  # so that the same command resumes


def test_a_resumed_run_keeps_the_sizes_it_was_trained_with(opened, tmp_path):
    options = RunOptions(parallel="jit")
    opened(dataset(200, ("validation", "test")), options)
    (tmp_path / "run" / "checkpoints").mkdir()
    _, asked = opened(dataset(200, ("validation", "test")), options)
    assert (asked.validation_size, asked.test_size) == (12, 12)
    other = dataclasses.replace(options, data=DataOptions(validation_size=13))
    with pytest.raises(UserError, match=r"data\.validation_size \(12 there, 13 now\)"):
        opened(dataset(200, ("validation", "test")), other)


def test_only_the_stages_that_run_need_enough_images(opened):
    options = dataclasses.replace(with_batch("prior", 500), stage="autoencoder", parallel="jit")
    run, _ = opened(dataset(200), options)
    assert run.options == options
    with pytest.raises(UserError, match=r"--config\.prior\.batch_size=500: there are only 200 training images"):
        opened(dataset(200), dataclasses.replace(options, stage="all"))


def test_a_size_that_does_not_fit_the_network_is_refused_before_anything_is_prepared(opened):
    with pytest.raises(UserError, match=r"50×50.* multiples of 4"):
        opened(None, RunOptions(parallel="jit", data=DataOptions(image_size=50)))


def test_a_folder_needs_no_sizes(tmp_path):
    for number in range(30):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    (tmp_path / "a.tif").touch()
    (tmp_path / "b.png").touch()
    found = load_dataset(
        "image_folder", data_dir=tmp_path / "out", manual_dir=tmp_path, image_size=8, channels=1, skip_corrupt=True
    )
    assert found.counts == (
        "24 images to train on, 3 for validation, 3 for testing; 8×8×1, 1 class; validation and test taken from "
        "train; left out 1 unreadable, 1 .tif"
    )
