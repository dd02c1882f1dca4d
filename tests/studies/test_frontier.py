"""The cells of the frontier, and how a training and its points are made and resumed."""

import dataclasses
import json
import math

import numpy as np
import pytest

from hvq_jax.data.datasets import Split
from hvq_jax.priors.tokens import Tables
from hvq_jax.runs.latent_data import LatentData
from hvq_jax.training.options import FitOptions
from studies.cells import Cell
from studies.frontier import cells, make, measure, results
from studies.frontier.cells import SIZES, Point, Size, Training, trainings


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_training_and_point_has_valid_options_and_a_name_of_its_own(size, tmp_path):
    made = trainings(size)
    names = [name for each in made for name in (each.name, *map(each.name_point, each.points))]
    assert len(set(names)) == len(names)
    assert len({(each.cell.config, each.cell.seed, each.cell.options) for each in made}) == len(made)
    checked = {training.points[0].curve: training for training in made}  # parsing them all takes long
    for training in checked.values():
        point = training.points[-1]
        keys = ("prior.conditional=False", *size.prior, *point.options)
        options = make.parse([*training.cell.arguments, *(f"--config.{key}" for key in keys)], tmp_path)
        assert (options.seed, options.stage) == (training.cell.seed, "autoencoder")


def test_latents_of_the_report_have_three_seeds_and_the_first_trainings_are_theirs():
    by_curve = {}
    for training in trainings():
        for point in training.points:
            by_curve.setdefault((point.curve, point.value), set()).add(training.cell.seed)
    for curve, value in by_curve:
        if curve in ("vq", "projected", "frequency", "combined"):
            assert by_curve[curve, value] == {0, 1, 2}
    assert {training.points[0].curve for training in trainings()[:18]} == {"vq", "projected"}
    codes = {value for curve, value in by_curve if curve == "vq"}
    gains = [int(value.removeprefix("G=")) for curve, value in by_curve if curve == "projected"]
    assert {f"K={cells.BASE_CODES * g}" for g in gains} <= codes  # the control at K·G codes


# Dense layers, which compile in a third of the time; they make 4×4 latents of images of 32×32.
OF_PATCHES = ("network.encoder=tests.plugins.patches:Encoder", "network.decoder=tests.plugins.patches:Decoder")


@pytest.fixture
def tiny():
    return Size(
        name="tiny",
        data=("data.name=fashion_mnist", "data.validation_size=128", "data.image_size=32"),
        latent_dim=8,
        autoencoder=(*OF_PATCHES, "network.width=8", "autoencoder.num_steps=4", "autoencoder.batch_size=64"),
        prior=("prior.width=8", "prior.num_layers=1", "prior.head_width=8", "prior.num_steps=3", "prior.batch_size=64"),
        fine_tuning=FitOptions(batch_size=64, num_epochs=1),
        num_images=20,
    )


def raise_interrupted(*arguments):
    raise InterruptedError


def test_a_training_is_made_once_with_its_points(tiny, tmp_path, data_dir, manual_dir, without_plots, monkeypatch):
    options = (*tiny.data, "latent.dim=8", "latent.num_codes=16", "parallel=jit", *tiny.autoencoder)
    points = (Point("p", "G=1", ("prior.num_bins=1",)), Point("p", "G=4", ("prior.num_bins=4",), codes_first=True))
    training = Training(
        Cell("configs/default.py:projected", {"size": "tiny", "latent": "p", "sizes": ""}, 0, options), points
    )
    data = [f"--config.data.data_dir={data_dir}", f"--config.data.manual_dir={manual_dir}"]
    kept, runs = tmp_path / "results", tmp_path / "runs"
    assert len(results.missing_points(training, kept)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(make, "measure", raise_interrupted)
        with pytest.raises(InterruptedError):
            make.make(training, tiny, kept, runs, data)
    first = results.find_training(training, kept).read_bytes()
    make.make(training, tiny, kept, runs, data)  # resumes: the autoencoder and the first point's prior are trained
    assert results.is_made(training, kept)
    assert results.find_training(training, kept).read_bytes() == first  # with the time that the training took
    assert list(runs.iterdir()) == []
    about, (one, four) = (
        results.read_training(training, kept),
        [results.read_point(training, point, kept) for point in points],
    )
    assert about["num_images"] == one["num_images"] == 20
    assert 0 < about["spread_within_codes"] <= about["length_spread"]
    assert one["prior_bits"]["continuous"] == one["static_bits"]["continuous"] == 0
    assert "codes_first_bits" not in one
    assert 0 < four["codes_first_bits"]["continuous"] < 16 * 3
    assert 0 < four["prior_bits"]["continuous"] < 16 * 3
    for found in (one, four):
        # A file holds little more than the prior's bits, which are those of the grid's positions.
        bits = sum(found["prior_bits"].values())
        assert bits <= found["coded_bits"] < bits + 30
        assert np.sum(list(found["bits_by_position"].values())) == pytest.approx(bits, rel=1e-3)
        assert found["fine_tuned"] != found["as_trained"]
    assert four["as_trained"]["mse"] == pytest.approx(about["mse"], rel=0.1)
    images = results.read_examples(training, points[1], kept)
    assert images["originals"].shape == images["decoded"].shape == (8, 32, 32, 1)
    assert images["continuous"].shape == (8, 4, 4)

    monkeypatch.setattr(make, "open_run", raise_interrupted)
    make.make(training, tiny, kept, runs, data)
    # A missing point alone is made again, from the same autoencoder trained again.
    monkeypatch.undo()
    results.find_point(training, points[0], kept).unlink()
    assert results.missing_points(training, kept) == [points[0]]


def test_codes_have_a_histogram_at_each_position():
    # Two positions: the code of the first is always 0, that of the second 0 or 1.
    def split(codes):
        return Split(np.array(codes, np.int16).reshape(-1, 1, 2, 1), np.zeros(len(codes), np.int32))

    tables = Tables(np.zeros(2, bool), np.zeros(2, bool))
    latents = LatentData(split([[0, 0], [0, 1]]), split([[0, 0]]), split([[0, 1], [1, 0]]), tables)
    expected = -sum(math.log2(p) for p in (3 / 4, 2 / 4, 1 / 4, 2 / 4))
    assert measure.bits_of_codes(latents) == pytest.approx(expected)


def test_codes_of_several_levels_are_counted_apart():
    items = np.array([[[[0, 1]]], [[[0, 1]]]], np.int16)
    both = Split(items, np.zeros(2, np.int32))
    tables = Tables(np.zeros(2, bool), np.zeros(2, bool), index_shape=(2,))
    assert measure.bits_of_codes(LatentData(both, both, both, tables)) == pytest.approx(-4 * math.log2(3 / 4))


def test_a_damaged_result_is_named(tmp_path):
    training = trainings()[0]
    tmp_path.joinpath(f"{training.name}.json").write_text(json.dumps({"seed": 0}))
    with pytest.raises(Exception, match=training.name):
        results.read_training(training, tmp_path)
    assert dataclasses.replace(training, points=()).points == ()
