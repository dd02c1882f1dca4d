"""FLOP as XLA counts them."""

import jax
import pytest

from hvq_jax.networks import resampling


@pytest.fixture
def xla_counts(monkeypatch):
    """FLOP of a function by XLA's cost analysis of what it lowers to on accelerators, before any optimisation."""
    monkeypatch.setattr(resampling, "_for_platform", lambda cpu, default, *arguments: default(*arguments))

    def count(function, *arguments):
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]

    return count
