"""The examples in docstrings run and give the documented results."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import hvq_jax.priors
import hvq_jax.quantizers


def modules_of(package):
    names = (module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."))
    return [package.__name__, *names]


WITH_EXAMPLES = ["hvq_jax.latents", "hvq_jax.losses", "hvq_jax.metrics", *modules_of(hvq_jax.quantizers)]


@pytest.mark.parametrize("name", [*WITH_EXAMPLES, *modules_of(hvq_jax.priors)])
def test_examples_give_what_they_say(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module)  # prints those that do not
    assert results.failed == 0
    assert results.attempted == inspect.getsource(module).count(">>> "), "some examples are not found"
    assert results.attempted > 0 or name not in WITH_EXAMPLES, "a module without an example"
