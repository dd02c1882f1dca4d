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
from hvq_jax.training.loop import RunContext, fit
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import abstract_variables, compiled_initial_state, compiled_steps
from tests.training.small_fit import FROM_DATA, TRAIN, VALIDATION, QuietStage, stage_of


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
    """A stage that counts how often it is traced; what it counts in is no field."""

    losses: ClassVar[list] = []
    starts: ClassVar[list] = []

    def loss(self, *arguments, **options):
        self.losses.append(self)
        return super().loss(*arguments, **options)

    def init(self, key):
        self.starts.append(self)
        return super().init(key)


@pytest.fixture
def counted_fit(tmp_path, monkeypatch):
    """Return a function that trains and returns the best state, and how often the loss and the start were traced."""
    monkeypatch.setattr(CountedStage, "losses", [])
    monkeypatch.setattr(CountedStage, "starts", [])

    def train(name, **options):
        (tmp_path / name).mkdir()
        run = RunContext(tmp_path / name, seed=0, parallel=Parallel("jit"), preemption=Preemption())
        counted = CountedStage(stage_of("combined").model, VALIDATION.items.copy())
        fit_options = FitOptions(**{"batch_size": 8, "num_steps": 4, **options})
        state = fit(counted, TRAIN, VALIDATION, options=fit_options, run=run)
        return state, (len(CountedStage.losses), len(CountedStage.starts))

    return train


def test_a_second_run_traces_nothing_and_ends_the_same(counted_fit):
    (first, traces), (again, traces_then) = counted_fit("first"), counted_fit("again")
    assert traces == traces_then
    assert min(traces) > 0
    jax.tree.map(np.testing.assert_array_equal, first, again)


@pytest.mark.parametrize(
    "options",
    [
        {"num_steps": 5},
        {"num_epochs": 2, "num_steps": 0},
        {"learning_rate": 0.1},
        {"schedule": "constant"},
        {"warmup_steps": 0},
        {"log_every_steps": 1, "eval_every_steps": 1, "checkpoint_every_steps": 1, "check_replicas_every_steps": 1},
        {"keep_checkpoints": 1},
    ],
)
def test_a_run_that_differs_in_rates_steps_or_intervals_traces_nothing(counted_fit, options):
    (first, traces), (other, traces_then) = counted_fit("first"), counted_fit("other", **options)
    assert traces == traces_then
    if not options.keys() & {"log_every_steps", "keep_checkpoints"}:  # but what is shared is not what it computes
        assert not np.array_equal(*(jax.tree.leaves(state.params["decoder"])[-1] for state in (first, other)))


@pytest.mark.parametrize(
    "options", [{"clip_norm": 1.0}, {"average_decay": 0.9}, {"accumulate_steps": 2}, {"batch_size": 4}]
)
def test_a_run_that_differs_in_what_is_compiled_traces_its_own_steps(counted_fit, options):
    (_, (losses, starts)), (_, (losses_then, starts_then)) = counted_fit("first"), counted_fit("other", **options)
    assert losses_then > losses
    assert starts_then == starts


def test_a_state_and_its_shapes_share_a_trace_whatever_the_images(monkeypatch):
    monkeypatch.setattr(CountedStage, "starts", [])
    model = stage_of(FROM_DATA).model
    abstract_variables(CountedStage(model, VALIDATION.items[:0]))
    compiled_initial_state(CountedStage(model, VALIDATION.items), FitOptions(), 3).lower()
    assert len(CountedStage.starts) == 1


def test_another_seed_or_form_is_another_program():
    def compiled(seed=0, form="jit"):
        return compiled_steps(stage(), FitOptions(), seed, Parallel(form))

    assert compiled() is compiled()
    assert compiled(seed=1) is not compiled()
    assert compiled(form="pmap") is not compiled()
