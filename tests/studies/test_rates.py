"""What is measured of the continuous part's cost, and what is shown of it."""

import json
import types

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax.data.datasets import Split, open_dataset
from hvq_jax.latents import LATENTS
from hvq_jax.priors.tokens import Tables
from hvq_jax.runs.latent_data import LatentData
from hvq_jax.runs.trained import TrainedRun
from studies.rates import measure, report

WHOLE = st.lists(st.integers(0, 5), min_size=1, max_size=30).map(np.array)


def test_static_bits_by_hand():
    # Seen 3, 0 and 1 times, each once more: p = 4/7, 1/7, 2/7.
    train, test = np.array([0, 0, 0, 2]), np.array([0, 1, 2, 2])
    assert measure.static_bits(train, test) == pytest.approx(-np.log2([4 / 7, 1 / 7, 2 / 7, 2 / 7]).sum())
    # Each condition has its own frequencies: after 0 it is 3/5 and 2/5, after 1 1/4 and 3/4.
    given = (np.array([0, 0, 0, 1, 1]), np.array([0, 1]))
    bits = measure.static_bits(np.array([0, 0, 1, 1, 1]), np.array([0, 0]), given)
    assert bits == pytest.approx(-np.log2(3 / 5) - np.log2(1 / 4))


@given(WHOLE, WHOLE)
def test_static_bits_are_never_below_the_entropy_of_what_is_sent(train, test):
    frequencies = np.bincount(test) / test.size
    entropy = -sum(p * np.log2(p) for p in frequencies if p)
    assert measure.static_bits(train, test) >= test.size * entropy - 1e-9


@pytest.mark.parametrize(
    ("mode", "bins", "steps"), [("vq", 0, 0), ("projected", 14, 0), ("frequency", 0, 6), ("combined", 14, 0)]
)
def test_a_latent_is_measured_by_what_its_decoder_sees(mode, bins, steps):
    run = types.SimpleNamespace(model=types.SimpleNamespace(row=LATENTS[mode]))
    names = list(measure.list_settings(run))
    assert sum(name.startswith("step ") for name in names) == steps
    assert len(names) == bins + steps


def test_bits_of_lengths_and_residuals_are_added_up():
    """Code 0 has two bins, code 1 three multiples of a step, code 2 neither; the rest of a token is 0."""
    random = np.random.default_rng(0)

    def split(count):
        items = random.integers(-2, 3, (count, 2, 2, 6)).astype(np.int16)
        items[..., 1:3] += 2  # bins start at 0
        items[..., 0] = random.integers(0, 3, items.shape[:3])
        items[..., 1:3][items[..., 0] != 0] = 0
        items[..., 3:][items[..., 0] != 1] = 0
        return Split(items, np.zeros(count, np.int32))

    tables = Tables(np.array([True, False, False]), np.array([False, True, False]), np.zeros((6, 5)), step=0.1)
    latents = LatentData(split(9), split(5), split(7), tables)

    def seen(split, code, channel):
        return [int(item[channel]) for item in split.items.reshape(-1, 6) if item[0] == code]

    expected = 0.0
    for code, channels, values in ((0, (1, 2), range(5)), (1, (3, 4, 5), range(-2, 3))):
        for channel in channels:
            train = seen(latents.train, code, channel)
            for value in seen(latents.test, code, channel):
                expected -= np.log2((train.count(value) + 1) / (len(train) + len(values)))
    assert measure.continuous_bits(latents, groups=2) == pytest.approx(expected)


def test_a_run_is_measured_and_shown(trained_run, tmp_path, monkeypatch):
    run, before = TrainedRun.load(trained_run), (trained_run / "tables.npz").read_bytes()
    result = measure.measured(run, {})
    assert (trained_run / "tables.npz").read_bytes() == before
    settings = result["settings"]
    assert len(settings) == 2 * len(measure.NUM_BINS)
    test = open_dataset(run.options.data).test
    images, _ = test.read(np.arange(len(test)))
    seen = np.concatenate([piece.images for piece in run.reconstruct(images)])
    exact = np.square((seen.astype(float) - images) / 127.5).mean()
    assert settings["64 a code"]["mse"] == pytest.approx(exact, rel=0.02)
    bits = [settings[f"{g} a code"]["bits_of_continuous"] for g in measure.NUM_BINS]
    assert bits[0] == 0
    assert all(np.diff(bits) > 0)
    assert bits[-1] < 49 * 6
    assert 0 < result["bits_of_codes"] <= 49 * 4  # of 16 codes
    assert result["share_outside"] == 1
    assert 0 < result["spread_within_codes"] <= result["length_spread"]

    monkeypatch.setattr(report, "find_results", lambda _: tmp_path)
    monkeypatch.setattr(report, "find_folder", lambda _: tmp_path)
    (tmp_path / "a run.json").write_text(
        json.dumps({**result, "mse_not_rounded": exact, "devices": "1 × cpu", "jax": "0.10.2"})
    )
    report.redraw()
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[2].startswith("| a run | 1 × cpu | 0.10.2 | 1 |  |")  # a tiny run's radial share was not asked for
    assert f"{settings['1 a code']['mse']:.4f} (0)" in lines[6]
    assert "<svg" in (tmp_path / "rates.svg").read_text()
