"""FLOP as XLA counts them, and networks that take little time to compile."""

import jax
import pytest

from configs import default, reference
from hvq_jax.networks import resampling


@pytest.fixture
def xla_counts(monkeypatch):
    """FLOP of a function by XLA's cost analysis of what it lowers to on accelerators, before any optimisation."""
    monkeypatch.setattr(resampling, "_for_platform", lambda cpu, default, *arguments: default(*arguments))

    def count(function, *arguments):
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]

    return count


@pytest.fixture
def without_blocks(monkeypatch):
    """Configs whose networks have no residual blocks."""

    def without(get_config):
        def get_config_without_blocks(latent):
            config = get_config(latent)
            config.network.num_blocks = 0
            return config

        return get_config_without_blocks

    for module in (default, reference):
        monkeypatch.setattr(module, "get_config", without(module.get_config))
