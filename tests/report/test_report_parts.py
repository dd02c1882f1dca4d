"""The parts of a report on arrays, and on models of every family that are not trained."""

import dataclasses

import jax
import numpy as np
import pytest

from hvq_jax import autoencoder
from hvq_jax.data.datasets import Split
from hvq_jax.report.charts import Point, Series, line_chart, point_chart
from hvq_jax.report.code_pictures import code_vectors, decode_alone
from hvq_jax.report.codebook import find_use, make_atlas
from hvq_jax.report.examples import find_examples
from hvq_jax.report.findings import names_of
from hvq_jax.report.markup import to_html
from hvq_jax.report.pictures import mapped, reduced, sheet
from hvq_jax.report.samples import find_nearest
from hvq_jax.runs.loaded import LoadedRun
from hvq_jax.runs.options import default_config, from_dict
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.programs import compiled_initial_state

FAMILIES = {
    "combined": ("combined", {}),
    "frequency": ("frequency", {}),
    "residual": ("vq", {"family": "residual", "depth": 2}),
    "grouped": ("vq", {"family": "grouped"}),
    "fsq": ("vq", {"family": "fsq", "levels": (3, 3)}),
}


def untrained(folder, mode="projected", **codebook):
    """Return a run of 8×8 colour images on a 4×4 grid whose autoencoder is at its random start."""
    config = default_config(mode)
    config.stage = "autoencoder"
    config.latent.update(num_codes=6, dim=4, num_frequent=3)
    config.network.update(num_blocks=0, factor=2)
    config.codebook.update(codebook)
    options = from_dict(config)
    run = TrainedRun(folder, options, (8, 8, 3), None, ("image",))
    create = compiled_initial_state(run.autoencoder_stage, options.autoencoder, 0)
    return LoadedRun(dataclasses.replace(run, given_autoencoder=jax.device_get(create())))


@pytest.mark.parametrize("family", FAMILIES)
def test_codes_and_maps_of_each_family(family, tmp_path):
    mode, codebook = FAMILIES[family]
    run = untrained(tmp_path, mode, **codebook)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    examples = find_examples(run, images, np.zeros(5, np.int32))
    assert examples.bits is None
    assert examples.colors.shape == (5, 4, 4, 3)
    use, num_levels = find_use(run, examples.encoded.indices), 2 if family in ("residual", "grouped") else 1
    assert use.counts.shape == (num_levels, run.stream.num_codes)
    assert (use.counts.sum(1) == 5 * 16).all()
    assert (use.frequent is not None) == (family in ("combined", "frequency"))
    atlas = make_atlas(run, use, 100)
    assert len(atlas.tiles) == len(atlas.images) == atlas.num_codes == num_levels * run.stream.num_codes
    if use.frequent is None:
        counts = [[tile.count for tile in atlas.tiles if tile.level == level] for level in range(num_levels)]
        assert counts == np.sort(use.counts)[:, ::-1].tolist()
    else:
        assert examples.frequent.sum() == use.counts[0][use.frequent].sum()
    if num_levels == 1:  # a tile is the middle of what all positions of this code decode to
        whole = run.decode(np.full((1, 4, 4), atlas.tiles[-1].code))
        np.testing.assert_array_equal(atlas.images[-1], whole[0, :6, :6])
    fewer = atlas.of_at_most(2 * num_levels)
    assert [(tile.level, tile.rank) for tile in fewer.tiles] == [(n, r) for n in range(num_levels) for r in (1, 2)]
    assert set(fewer.tiles) < set(atlas.tiles)  # their neighbours among all codes, too
    patches = decode_alone(run, code_vectors(run)[0], 1)
    assert patches.shape == (run.stream.num_codes, 2, 2, 3)
    if num_levels == 1:
        whole = run.decode(np.arange(run.stream.num_codes)[:, None, None].repeat(4, 1).repeat(4, 2))
        np.testing.assert_array_equal(patches, whole[:, 2:4, 2:4])


def test_neighbours_are_the_nearest_of_all_codes(tmp_path, monkeypatch):
    run = untrained(tmp_path, init="uniform")
    codes = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    assert autoencoder.codes(run.stream.model, run.stream.variables).shape == codes.shape
    params = {**run.stream.variables.params, "quantizer": {"codes": codes}}
    state = dataclasses.replace(run.stream.given_autoencoder, params=params)
    run = LoadedRun(dataclasses.replace(run.stream, given_autoencoder=state))
    codes = np.asarray(autoencoder.codes(run.stream.model, run.stream.variables))
    monkeypatch.setattr("hvq_jax.report.codebook._MOST_DISTANCES", 12)  # two codes at a time
    for most in (6, 3):  # whether they are shown or not
        atlas = make_atlas(run, find_use(run, np.arange(6).reshape(1, 2, 3)), most)
        assert len(atlas.tiles) == most
        for tile in atlas.tiles:
            distances = np.linalg.norm(codes - codes[tile.code], axis=1)
            assert list(tile.neighbours) == [other for other in np.argsort(distances) if other != tile.code][:3]


def test_the_nearest_training_image(monkeypatch):
    random = np.random.default_rng(1)
    train = Split(random.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8), np.zeros(9, np.int32))
    images = np.stack([train.items[7], 255 - train.items[2]])
    monkeypatch.setattr("hvq_jax.report.samples._PIECE_BYTES", 4 * 4 * 48)  # of four images, as float32
    sizes, read = [], Split.read
    monkeypatch.setattr(Split, "read", lambda split, rows: sizes.append(len(rows)) or read(split, rows))
    found = find_nearest(images, train)
    assert sizes == [4, 4, 1]
    root = np.sqrt(np.square(images[:, None] / 255.0 - train.items / 255.0).mean((2, 3, 4)))
    np.testing.assert_array_equal(found.images, train.items[root.argmin(1)])
    np.testing.assert_allclose(found.distances, root.min(1), atol=1e-3)  # rounding of a difference of squares
    assert root.argmin(1)[0] == 7


def test_pictures():
    tiles, columns, rows = sheet(np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1))
    assert (columns, rows) == (3, 2)
    assert tiles[..., 0].tolist() == [[0, 1, 2], [3, 4, 0]]
    assert mapped(np.array([[-1.0, 2.0]]), "viridis", 0, 1)[0].tolist() == [[68, 1, 84], [253, 231, 37]]
    large = np.random.default_rng(0).integers(0, 256, (200, 100, 1), dtype=np.uint8)
    assert reduced(large).shape == (96, 48)
    assert abs(reduced(large).mean() - large.mean()) < 1


def test_names_of_runs_are_shown_as_they_are():
    """Matplotlib leaves out names that begin with _, and sets what is between $ as mathematics."""
    names = ["_a", "$b_c$"]
    lines = line_chart("", [Series(name, [1, 2], [1, 2], "#0072B2") for name in names], x_label="", y_label="")
    points = point_chart("", [Point(name, 1, 2, "#0072B2") for name in names], x_label="", y_label="")
    for chart in (lines, points):
        assert [node.text for node in chart.iter("text") if node.text in names] == names
    assert names_of(["runs/caf\udce9", "runs/b"]) == [r"caf\xe9", "b"]


def test_each_point_of_a_chart_has_its_value_as_a_title():
    falling = Series("loss", [1, 2, 3], [0.5, 0.25, 0.125], "#000000")
    chart = line_chart("all", [falling], x_label="x", y_label="y", log=True)
    assert chart.get("aria-label") == "all"
    titles = [node.text for node in chart.iter("title")]
    assert titles == ["loss: 0.5 at 1", "loss: 0.25 at 2", "loss: 0.125 at 3"]
    many = line_chart("many", [Series("a", range(5000), range(5000), "#0072B2")], x_label="x", y_label="y")
    assert [node.text for node in many.iter("title")][-1] == "a: 4999 at 4,999"
    assert len(to_html(many)) < 40_000
    points = point_chart("points", [Point("b <c>", 1000.0, 20.5, "#0072B2")], x_label="x", y_label="y")
    assert "<title>b &lt;c&gt;: 20.5 at 1,000</title>" in to_html(points)
