"""What the probe reports for steps with a known history, and a short run of it."""

import numpy as np
import pytest

from hvq_jax.errors import UserError
from studies.cells import Cell
from studies.stability.probe import main, summary, wakings, watched
from tests.conftest import TINY

N, K = 600, 4


def test_a_code_wakes_when_it_is_used_after_a_long_sleep():
    counts = np.ones((N, K), int)
    counts[:, 1] = 0
    counts[300, 1] = 1  # never used before
    counts[300:550, 2] = 0  # asleep for 250
    counts[350:500, 3] = 0  # for 150 only
    assert np.argwhere(wakings(counts)).tolist() == [[300, 1], [550, 2]]


def test_what_is_said_of_known_steps():
    seen = {
        "loss": np.ones(N),
        "gradient_norm": np.linspace(1, 2, N),
        "counts": np.ones((N, K), int),
        "gain": np.full((N, K), 1.0),
        "moved": np.full((N, K), 1e-3),
        "towards": np.full((N, K), 0.5),
        "reassigned": np.linspace(0, 1, N),
    }
    seen["gain"][:, 0], seen["towards"][:, 0] = 3.0, -0.5
    seen["counts"][:300, 1], seen["moved"][300, 1] = 0, 5e-3
    seen["loss"][302], seen["loss"][400] = 4.0, 2.0
    found = summary(seen, learning_rate=1e-3)
    assert (found["turned_away_where_gain_above_2"], found["turned_away_where_gain_below_2"]) == (1.0, 0.0)
    assert (found["wakings"], found["step_of_woken_code_in_learning_rates"]) == (1, pytest.approx(5.0))
    assert found["step_of_used_code_in_learning_rates"] == pytest.approx(1.0)
    assert found["worst_loss_ratio_within_5_steps_of_a_waking"] == 4.0
    assert found["worst_loss_ratio_elsewhere"] == 2.0
    assert [step["step"] for step in found["worst_steps"][:2]] == [303, 401]
    assert found["worst_steps"][0]["woken_in_5_steps_before"] == 1


def test_a_short_run(data_dir):
    options = tuple(option.removeprefix("--config.") for option in TINY)
    gradient = ("codebook.learning=gradient", "codebook.init=uniform", "latent.num_codes=64")
    cell = Cell("configs/quickstart.py:projected", {}, 0, (*options, *gradient))
    seen, learning_rate = watched(cell, [f"--config.data.data_dir={data_dir}"], 4)
    assert learning_rate == pytest.approx(6e-3)
    assert seen["loss"].shape == (4,)
    assert seen["counts"].shape == seen["towards"].shape == (4, 64)
    assert (seen["counts"].sum(1) == 64 * 49).all()
    assert (np.abs(seen["towards"]) <= 1 + 1e-5).all()
    assert (seen["moved"][1:] > 0).any()  # the first step has a learning rate of 0
    never = np.cumsum(seen["counts"], axis=0) == 0
    assert never.any()
    assert (seen["moved"][never] == 0).all()  # it counts what the step counted


def test_bad_input():
    for arguments, says in (
        (["--cell=nothing"], "choose one of"),
        (["--cell=gradient-both-1400-seed_0", "--steps=9"], "above 400"),
    ):
        with pytest.raises(UserError, match=says):
            main(["--manual_dir=x", *arguments])
