"""Every way to quantize, through the loop: on any number of devices, stopped and resumed, and watched."""

import dataclasses
import types

import chex
import jax
import numpy as np
import pytest

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Variables
from hvq_jax.devices.parallel import Parallel
from hvq_jax.metrics import Mean
from hvq_jax.quantizers import make_quantizer
from hvq_jax.training import autoencoder_stage
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.logging import read_records
from tests.methods import GRADIENT, METHODS, model_of
from tests.training.small_fit import STEPS, VALIDATION, QuietStage, small_fit, small_training


def codes_after_training(model, form):
    metrics, state = small_training(QuietStage(model, VALIDATION.items), Parallel(form))
    state = jax.device_get(state)
    return metrics, np.asarray(autoencoder.codes(model, Variables(state.params, state.model_state)))


# Codes of moving averages: test_two_processes.py; every other method, alone: test_bottleneck.py.
def test_one_device_and_four_learn_the_same_codebook_in_a_whole_model():
    """Four steps on the same global batches, from the same start.

    Float32 rounds by 6e-8 at each addition, and the devices add in another order; batch norms and Adam, which divides
    gradients by their size, magnify that to 1e-5 of codes of size 1. One vector more or less in the mean of a code
    would be seen in the second digit.
    """
    model = METHODS["directions from clusters"]
    (metrics, one), (others, four) = (codes_after_training(model, form) for form in ("jit", "pmap"))
    np.testing.assert_allclose(four, one, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(metrics, others, strict=True):
        assert ours["perplexity"] == pytest.approx(theirs["perplexity"], rel=1e-5)  # the same assignments
        assert ours["revived_codes_per_step"] == theirs["revived_codes_per_step"]
    assert metrics[0]["revived_codes_per_step"] == 0  # they have started from data before


def losses(workdir):
    return [record["loss"] for record in read_records(workdir) if record["split"] == "train"]


class StartedStage(QuietStage):
    """A stage whose codes have started from data."""

    def start_from_data(self, *_):
        """Fail, because it must not be called again."""
        raise AssertionError("codes start from data again")


def test_stopped_and_resumed_it_ends_bit_identical(tmp_path):
    """Codes start from data once, and not again when a run is resumed."""
    model = METHODS["residual from clusters"]
    assert model.quantizer.starts_from_data
    stage = QuietStage(model, VALIDATION.items)
    whole = small_fit(tmp_path / "whole", stage=stage, num_steps=STEPS)
    small_fit(tmp_path / "parts", stage=stage, num_steps=2)
    parts = small_fit(tmp_path / "parts", stage=StartedStage(model, VALIDATION.items), num_steps=STEPS)
    assert whole.step == parts.step
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_the_first_batch_is_trained_on_whatever_the_codes_start_from(tmp_path):
    """The encoder's running statistics after step 1 are those of the very same images and parameters."""
    models = {init: model_of(codebook_options={**GRADIENT, "init": init}) for init in ("uniform", "data")}
    states = [
        small_fit(tmp_path / init, stage=QuietStage(model, VALIDATION.items), num_steps=1)
        for init, model in models.items()
    ]
    uniform, data = (state.model_state.batch_stats["encoder"] for state in states)
    chex.assert_trees_all_close(uniform, data, rtol=1e-6)  # two programs may round in two ways
    uniform, data = (np.abs(state.params["quantizer"]["codes"]).max() for state in states)
    assert uniform < 0.2 < data  # 1/K and a step of Adam; encoder outputs


def test_a_codebook_that_collapsed_and_a_mask_that_covers_everything_are_warned_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(autoencoder_stage, "_FEW_CODES", 0.9)  # 44 positions cannot be assigned to few of 1024 codes
    collapsed = model_of(
        {"mode": "frequency", "num_codes": 1024, "num_frequent": 1024},
        {**GRADIENT, "init": "uniform"},
    )
    stage = AutoencoderStage(collapsed, VALIDATION.items)
    small_fit(tmp_path / "collapsed", stage=stage, num_steps=2, eval_every_steps=1)  # said once, not at each
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(lines) == 2, lines
    assert "of 1024 codes are in use: the codebook has collapsed" in lines[0]
    assert "no position is outside the mask: the latent frequency is plain vq here" in lines[1]


def test_codes_that_are_revived_all_the_time_are_warned_of():
    stage = AutoencoderStage(model_of(), VALIDATION.items)  # of 8 codes

    def warnings(revived, *shape):
        return stage.step_warnings(types.SimpleNamespace(revived=np.array(revived), counts=np.ones((4, *shape))))

    assert not warnings([0, 0, 0, 0], 8)
    assert not warnings([0, 0, 0, 8], 80)
    (line,) = warnings([1, 0, 1, 0], 8).values()
    assert line.startswith("6% of the codes are moved onto encoder outputs in every step")
    assert "codebook.revive_below" in line
    assert not warnings([1, 0, 1, 0], 3, 8)  # three codebooks


@dataclasses.dataclass
class Sums:
    """The sums that `warnings` reads."""

    counts: np.ndarray
    share_outside: Mean


@pytest.mark.parametrize(("used", "warned"), [(9, 1), (10, 0)])
def test_fewer_than_a_tenth_are_few(used, warned):
    sums = Sums(np.where(np.arange(100) < used, 50.0, 0.0), Mean(np.float64(0), np.float64(7)))
    vq, combined = (AutoencoderStage(model_of({"mode": mode}), VALIDATION.items) for mode in ("vq", "combined"))
    assert len(vq.warnings(sums)) == warned  # plain vq has no mask to be warned of
    assert len(combined.warnings(sums)) == warned + 1
    sums.share_outside = Mean(np.float64(1), np.float64(7))
    assert len(combined.warnings(sums)) == warned


@pytest.mark.parametrize(("used", "warned"), [(490, 0), (50, 0), (48, 1)])
def test_a_few_positions_need_not_use_more_codes_than_they_are(used, warned):
    counts = np.zeros(8192)
    counts[:used] = 490 / used
    sums = Sums(counts, Mean(np.float64(0), np.float64(7)))
    assert len(AutoencoderStage(model_of(), VALIDATION.items).warnings(sums)) == warned
    levels = Sums(np.stack([counts, counts]), sums.share_outside)
    assert len(AutoencoderStage(METHODS["residual"], VALIDATION.items).warnings(levels)) == warned


@pytest.mark.parametrize("method", METHODS)
def test_the_warning_of_a_collapse_names_options_that_can_be_changed(method):
    model = METHODS[method]
    sums = Sums(np.eye(1, 512)[0] * 1000, Mean(np.float64(1), np.float64(7)))
    (line,) = AutoencoderStage(model, VALIDATION.items).warnings(sums).values()
    assert line.startswith("1 of 512 codes are in use: the codebook has collapsed, try another ")
    others = {"init": "uniform", "learning": "ema", "revive_below": 0.5, "levels": (8, 5), "bits": 4}
    for name, value in others.items():
        if f"codebook.{name}" in line:
            make_quantizer(model.latent_options, dataclasses.replace(model.codebook_options, **{name: value}))
    family = model.codebook_options.family
    assert ("codebook.levels" in line) == (family in ("fsq", "residual_fsq"))
    assert ("codebook.bits" in line) == (family in ("lfq", "bsq"))
    assert ("codebook.init" in line) == ("codebook.levels" not in line and "codebook.bits" not in line)
