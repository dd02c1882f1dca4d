"""Runs of one process share compiled programs exactly where they train the same."""

import dataclasses
from typing import ClassVar

import jax
import numpy as np
import pytest

from hvq_jax import latents
from hvq_jax.autoencoder import Autoencoder, LatentOptions, NetworkOptions
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.latents import CODE, PROJECTION, Latent
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.learning_rates import Stretch
from hvq_jax.training.loop import RunContext, fit
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import compiled_steps
from tests.training.small_fit import TRAIN, VALIDATION, QuietStage, stage_of


def stage(mode="vq", images=VALIDATION.items, **options):
    latent = LatentOptions(mode=mode, num_codes=8, dim=4, num_frequent=4)
    return AutoencoderStage(Autoencoder((8, 8, 1), NetworkOptions(num_blocks=0), latent), images, **options)


def test_stages_with_equal_values_are_equal():
    same = stage(images=VALIDATION.items.copy())
    assert stage() == same
    assert hash(stage()) == hash(same)


OTHERS = [
    stage("projected"),
    stage(images=TRAIN.items),
    stage(frozen=("encoder",)),
    QuietStage(stage().model, VALIDATION.items),
]


@pytest.mark.parametrize("other", OTHERS)
def test_stages_of_other_values_or_classes_differ(other):
    assert stage() != other


def test_stages_of_the_prior_differ_by_where_there_are_continuous_parts():
    prior = Prior(num_codes=8, network=PixelCNN(width=4, num_layers=1))
    one, same, other = (
        PriorStage(prior, (2, 2), has_continuous=has)
        for has in (np.ones((1, 8), bool), np.ones((1, 8), bool), np.zeros((1, 8), bool))
    )
    assert one == same
    assert one != other


def test_a_row_that_changes_under_its_name_makes_another_stage(monkeypatch):
    stages = {}  # in a dictionary, as where programs are kept
    for row in (Latent(frequent=PROJECTION, rare=CODE), Latent(frequent=CODE, rare=PROJECTION)):
        monkeypatch.setitem(latents.LATENTS, "mine", row)
        stages[stage("mine")] = row
    assert len({each.model for each in stages}) == 1
    assert len(stages) == 2


@dataclasses.dataclass(frozen=True, eq=False)
class CountedStage(QuietStage):
    """A stage that counts how often its loss is traced; what it counts in is no field."""

    traces: ClassVar[list] = []

    def loss(self, *arguments, **options):
        self.traces.append(self)
        return super().loss(*arguments, **options)


def test_a_second_run_traces_nothing_and_ends_the_same(tmp_path):
    states, traces = [], []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        run = RunContext(tmp_path / name, seed=0, parallel=Parallel("jit"), preemption=Preemption())
        counted = CountedStage(stage_of("combined").model, VALIDATION.items.copy())
        options = FitOptions(batch_size=8, num_steps=2)
        states.append(fit(counted, TRAIN, VALIDATION, options=options, run=run))
        traces.append(len(CountedStage.traces))
    assert traces[0] == traces[1] > 0
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_another_seed_rate_option_or_form_is_another_program():
    def compiled(seed=0, form="jit", **options):
        fit_options = FitOptions(batch_size=8, **options)
        return compiled_steps(stage(), fit_options, (Stretch(fit_options.rates(4)),), seed, Parallel(form))

    assert compiled() is compiled()
    others = ({"seed": 1}, {"form": "pmap"}, {"learning_rate": 0.1}, {"clip_norm": 1.0}, {"average_decay": 0.9})
    assert not [other for other in others if compiled(**other) is compiled()]
