"""The metrics that a study derives from a run."""

import numpy as np
import pytest

from studies.run_metrics import radial_share, spikes, stability


def test_a_spike_is_three_times_the_median_before_it():
    losses = np.ones(400)
    losses[[150, 250, 300]] = [10.0, 3.01, 3.0]  # too early; a spike; not above
    assert spikes(losses).tolist() == [250]


def test_a_lasting_rise_is_a_spike_until_the_median_has_risen():
    losses = np.where(np.arange(500) < 300, 1.0, 4.0)
    found = spikes(losses)
    assert found[0] == 300
    assert found[-1] == 350  # the window then holds 51 of 101 risen losses


def test_a_slow_fall_has_no_spikes():
    assert len(spikes(10 * np.exp(-np.arange(1000) / 100))) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_a_spike(bad):
    losses = np.ones(300)
    losses[299] = bad
    assert spikes(losses).tolist() == [299]


def test_metrics_of_a_run():
    losses, norms = np.ones(300), np.full(300, 2.0)
    losses[[0, 250]], norms[260] = [100.0, 5.0], 8.0
    metrics = stability(losses, norms)
    assert (metrics.num_steps, metrics.num_spikes, metrics.first_spike) == (300, 1, 251)
    assert (metrics.peak, metrics.loss_ratio, metrics.gradient_norm_ratio) == (5.0, 5.0, 4.0)


def test_radial_share_of_an_error_along_the_code_is_one():
    assert radial_share(0.25, 0.25, to_projection=False) == 1.0
    assert radial_share(0.25, 0.0, to_projection=True) == 1.0
    assert radial_share(0.0, 0.0, to_projection=False) == 0.0


def test_radial_share_does_not_depend_on_what_is_committed_to():
    """A perpendicular part of 3 and a radial one of 1."""
    assert radial_share(1.0, 4.0, to_projection=False) == radial_share(1.0, 3.0, to_projection=True) == 0.25
