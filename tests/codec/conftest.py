"""Latents of every kind under small priors with random parameters, and their codecs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.codec.latent_codec import LatentCodec
from hvq_jax.priors.heads import GainHead, ResidualHead
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.transformer import Transformer
from tests.priors.models import pixelcnn_prior, random_variables

K = 11  # not a power of two
GRID = 2, 3
COUNT = 5


def pytest_collection_modifyitems(items):
    pytest.importorskip("constriction", reason="compression is optional")


def _codes(rng):
    return rng.integers(0, K, (COUNT, *GRID, 1)).astype(np.int32)


def _transformer(**options):
    network = Transformer(num_classes=options.pop("num_classes", 0), grid=GRID, width=8, num_layers=1, num_heads=2)
    return Prior(K, network, options.pop("heads", ()), 16, **options)


def make_prior_and_tokens(kind, rng):
    """Return a prior, tokens `[COUNT, 2, 3, channels]`, and which codes have its parts."""
    codes = _codes(rng)
    rare = np.arange(K) % 2 == 1
    present = rare[codes]
    if kind == "codes":
        return pixelcnn_prior(K), codes, None
    if kind == "classes":
        return pixelcnn_prior(K, num_classes=3), codes, None
    if kind == "transformer":
        return _transformer(num_classes=3), codes, None
    if kind == "levels":
        return _transformer(codes_per_position=2), np.concatenate([codes, _codes(rng)], axis=-1), None
    if kind == "bins":
        bins = np.where(present, rng.integers(0, 5, (COUNT, *GRID, 2)), 0)
        heads = (GainHead(K, 5, 2, 8, 16),)
        return pixelcnn_prior(K, heads=heads), np.concatenate([codes, bins], -1).astype(np.int32), jnp.array([rare])
    residuals = np.where(present, rng.normal(0, 3, (COUNT, *GRID, 3)).round(), 0)
    heads = (ResidualHead(K, 3, 0.1, 2, 8, 16, initial_scale=0.3),)
    tokens = np.concatenate([codes, residuals], axis=-1).astype(np.int32)
    return _transformer(heads=heads), tokens, jnp.array([rare])


KINDS = "codes", "classes", "transformer", "levels", "bins", "residuals"


class Case:
    """Latents, their prior's nats, and codecs."""

    def __init__(self, kind, *, seed=0):
        rng = np.random.default_rng(seed)
        self.prior, self.tokens, self.has_continuous = make_prior_and_tokens(kind, rng)
        self.labels = np.full(COUNT, -1, np.int32)
        if self.prior.num_classes:
            self.labels = rng.integers(-1, 3, COUNT).astype(np.int32)
        self.condition = self.labels if self.prior.num_classes else None
        self.variables = random_variables(self.prior, self.tokens, self.condition, self.has_continuous)

    @functools.cache  # noqa: B019 - cases live as long as the tests
    def codec(self, **options):
        with_labels = bool(self.prior.num_classes)
        return LatentCodec(self.prior, self.variables, *GRID, self.has_continuous, with_labels, **options)

    @functools.cached_property
    def bits(self):
        """The information of each latent with its label, `[COUNT]`."""
        nats = jax.jit(self.prior.apply)(self.variables, self.tokens, self.condition, self.has_continuous)
        of_label = np.log2(self.prior.num_classes + 1) if self.prior.num_classes else 0.0
        return np.asarray(nats.of_latents().total, np.float64) / np.log(2) + of_label


@pytest.fixture(scope="session", params=KINDS)
def case(request):
    return Case(request.param)
