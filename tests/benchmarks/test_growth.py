"""How `benchmarks/growth.py` reports its measurements, and one real run on tiny sizes."""

import dataclasses
import json

import jax
import pytest
from PIL import Image

from benchmarks.growth import Measurement, crossing, exponents, main, parse, shares, summary, verdict
from benchmarks.workloads import axes, programs
from benchmarks.workloads.axes import AXES, Axis
from benchmarks.workloads.programs import Sizes, autoencoder_step, codebook_search
from hvq_jax.command import exit_status
from hvq_jax.errors import UserError

TINY = Sizes(batch=4, dim=4, codes=8, image=8, grid=3, prior_batch=4, layers=2)
CODES = Axis("codes", "K", (128, 512, 2048), {"step": 1, "search": 1})


@pytest.fixture
def tiny(monkeypatch, without_blocks):
    """Two values of every axis, around a tiny base."""
    monkeypatch.setattr(axes, "BASE", TINY)
    for name, axis in AXES.items():
        base = getattr(TINY, axis.field)
        values = (base, base + 4 if axis.is_side else 2 * base)
        monkeypatch.setitem(AXES, name, dataclasses.replace(axis, values=values))


def test_a_real_run_prints_writes_and_draws(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("benchmarks.growth.SHORTEST", 0.0)
    main(["--repetitions=2", "--axes=codes", f"--json={tmp_path / 'growth.json'}", f"--plots={tmp_path}"])
    printed = capsys.readouterr().out
    assert sum(line.startswith("| --- |") for line in printed.splitlines()) == 1
    assert printed.count("The search's share of the step is ") == 1
    points = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert [(point["axis"], point["value"], point["work"]) for point in points] == [
        (name, value, work) for name in ("codes",) for value in AXES[name].values for work in AXES[name].works
    ]
    assert all(len(point["seconds"]) == 2 and point["median_ms"] > 0 and point["mib"] > 0 for point in points)
    sizes = {path.name: Image.open(path).size for path in tmp_path.glob("*.png")}
    assert sizes == dict.fromkeys(["growth_codes.png", "growth_search.png"], (860, 360))


@pytest.mark.usefixtures("without_blocks")
def test_memory_is_what_the_program_holds_and_a_donated_state_counts_once():
    search = codebook_search(TINY)
    vectors, codes, indices = 4 * 2 * 2 * 4, 8 * 4, 4 * 2 * 2
    assert 4 * (vectors + codes + indices) <= 2**20 * search.mib <= 4 * (vectors + codes + indices) + 4096
    step = autoencoder_step(dataclasses.replace(TINY, dim=32))
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(step.call.state))
    assert state_bytes < 2**20 * step.mib < 2 * state_bytes


def test_the_search_is_of_as_many_vectors_as_the_network_makes(monkeypatch):
    at_factor_4 = codebook_search(TINY).mib
    config = programs.default.get_config("projected")
    config.network.factor = 2
    monkeypatch.setattr(programs.default, "get_config", lambda latent: config)
    codes = 4 * 8 * 4 / 2**20  # of which there are not four times as many
    assert codebook_search(TINY).mib == pytest.approx(4 * at_factor_4 - 3 * codes, rel=0.2)


def test_exponents_are_those_of_powers():
    assert exponents([2, 4, 8], [5, 10, 40]) == [None, pytest.approx(1), pytest.approx(2)]


def test_the_share_is_that_of_neighbouring_repetitions():
    assert shares(Measurement([1.0, 10.0], 1.0), Measurement([0.1, 2.0], 1.0)) == [0.1, 0.2]


def test_the_crossing_is_between_the_points_around_it():
    # Proportional to the size: 0.04 at 128, so 0.1 at 320.
    assert crossing([128, 512, 2048], [0.04, 0.16, 0.64], 0.1) == pytest.approx(320)
    # Inversely: 0.1 at 256, from above.
    assert crossing([64, 1024], [0.4, 0.025], 0.1) == pytest.approx(256)
    # It stays below only up to the first point above.
    assert crossing([1, 2, 4, 8], [0.05, 0.2, 0.05, 0.2], 0.1) == pytest.approx(2**0.5)
    assert crossing([1, 2], [0.05, 0.1], 0.1) == pytest.approx(2)
    assert crossing([1, 2], [0.01, 0.09], 0.1) is None
    assert crossing([1, 2], [0.2, 0.3], 0.1) is None


def test_the_summary_has_both_ends_and_the_exponent_between_them():
    rows = [
        {"axis": "image", "work": "step", "value": side, "median_ms": 2.0 * side**2, "mib": 1.5 * side}
        for side in AXES["image"].values
    ]
    assert summary(rows) == [
        ["image, 28×28 to 128×128", "training step", "1,568 to 32,768", "1.00", "42 to 192", "0.50"]
    ]


@pytest.mark.parametrize(
    ("medians", "end"),
    [
        ([0.04, 0.16, 0.64], "less than 10% up to K = 320."),
        ([0.4, 0.1, 0.025], "less than 10% from K = 512."),
        ([0.01, 0.02, 0.03], "less than 10% at every K."),
        ([0.2, 0.3, 0.4], "more than 10% at every K."),
    ],
)
def test_the_sentence_on_the_search(medians, end):
    assert verdict(CODES, medians) == f"The search's share of the step is {end}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--axes=dim,typo"], "--axes=dim,typo: there is no axis 'typo'; choose from batch, dim, codes, image, grid"),
        (["--axes="], "--axes=: there is no axis ''; choose from"),
        (["--repetitions=0"], "--repetitions=0: must be at least 1"),
        (["--json=/no/such/folder/a.json"], "--json=/no/such/folder/a.json: the folder does not exist or is not"),
        (["--plots=/no/such/folder"], "--plots=/no/such/folder: the folder does not exist or is not writable"),
        (["--plots="], "--plots=: the folder does not exist or is not writable"),
        ([f"--plots={__file__}"], f"--plots={__file__}: the folder does not exist"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, capsys):
    with pytest.raises(UserError) as error:
        parse(arguments)
    assert str(error.value).startswith(message)
    assert exit_status(lambda: main(arguments)) == 1
    assert capsys.readouterr().err == f"error: {error.value}\n"
