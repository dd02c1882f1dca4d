"""A name that is none of the choices is refused, in the library too, before anything is computed with it."""

import dataclasses
import importlib
import inspect
import io
import pkgutil
import typing
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import hvq_jax
from hvq_jax import latents
from hvq_jax.codes import codes_of
from hvq_jax.data.decode import decode_image
from hvq_jax.data.examples import ExampleParser
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import CODE, Latent, hybrid_latent, plain_latent
from hvq_jax.losses import latent_losses, losses_per_image
from hvq_jax.networks.layers import conv
from hvq_jax.options import Options, members
from hvq_jax.quantizers.assignment import code_costs, nearest_codes
from hvq_jax.runs.options import KEYS, default_config

# Parameters that take one of a set of names: those called like an option with choices, and these. `name` is too common.
NAMED = {key.rpartition(".")[2] for key, field in KEYS.items() if field.metadata["rule"].choices} - {"name"}
NAMED |= {"dtype", "form", "frequent", "part", "rare", "result_dtype"}

ROW = Latent(CODE, CODE)
VECTORS, CODES = jnp.ones((3, 2)), jnp.ones((4, 2))
INDICES, FREQUENT = jnp.zeros(3, int), jnp.ones(4, bool)
IMAGES = jnp.ones((3, 2, 2, 1))


def losses(**given):
    return losses_per_image(IMAGES, IMAGES, VECTORS, plain_latent(VECTORS, VECTORS, INDICES, VECTORS), **given)


# How to call each function.
CALLS = {
    "conv": lambda dtype: conv(1, 3, dtype),
    "Latent.uses": ROW.uses,
    "Latent.codes_with": lambda part: ROW.codes_with(part, FREQUENT),
    "find_latent": latents.find_latent,
    "hybrid_latent": lambda mode="vq", **given: hybrid_latent(VECTORS, CODES, INDICES, FREQUENT, mode=mode, **given),
    "losses_per_image": losses,
    "latent_losses": lambda **given: latent_losses(
        VECTORS, plain_latent(VECTORS, VECTORS, INDICES, VECTORS), jnp.mean, **given
    ),
    "default_config": default_config,
    "codes_of": lambda mode="vq", **given: codes_of(VECTORS, CODES, mode=mode, **given),
    "nearest_codes": lambda assignment: nearest_codes(VECTORS, CODES, assignment),
    "code_costs": lambda assignment: code_costs(VECTORS, CODES, assignment),
}

# Parameters of such a name that any text will do for: it is only repeated in an error, or selects what has it.
REPEATED = {("require", "family"), ("form", "dtype"), ("latent_color", "mode")}
REPEATED |= {
    ("drop_records", "stage"),
    ("Panel", "stage"),
    ("StagePlan", "stage"),
    ("earlier_options", "stage"),
    ("from_the_start", "stage"),
}

# The methods of these are given the name of a stage to write or to show it.
LOGS = ("Callback", "TensorBoard", "Tracker", "Writer")

# The modules that are made of these options check them.
BASES = {"HybridQuantizerOptions"}

# Other arguments that a class needs, 1 where it takes a number.
NEEDED = {"frequent": CODE, "rare": CODE, "dtype": "float32"}


def public_callables():
    """Yield the qualified name and the object of every public class, function and method of the package."""
    for module in pkgutil.walk_packages(hvq_jax.__path__, "hvq_jax."):
        for name, found in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or getattr(found, "__module__", "") != module.name or not callable(found):
                continue
            yield name, found
            if inspect.isclass(found) and not getattr(found, "_is_protocol", False):
                methods = {key: value for key, value in vars(found).items() if inspect.isfunction(value)}
                yield from ((f"{name}.{key}", value) for key, value in methods.items() if not key.startswith("_"))


def takes_a_name(found):
    """Yield the parameters of `found` that take one of a set of names."""
    if inspect.isclass(found) and not dataclasses.is_dataclass(found):
        return
    for parameter in inspect.signature(found).parameters.values():
        # In Flax's layers, a dtype is Any.
        text = {str, type(None), *([Any] * inspect.isclass(found))}
        if parameter.name in NAMED and text.issuperset(members(parameter.annotation)):
            yield parameter.name


TAKERS = [
    pytest.param(name, found, parameter, id=f"{name}({parameter})")
    for name, found in public_callables()
    for parameter in takes_a_name(found)
    if (name, parameter) not in REPEATED
    and name.partition(".")[0] not in LOGS
    and name not in BASES
    and not getattr(found, "_is_protocol", False)
]


def test_the_walk_finds_what_takes_a_name():
    found = {(parameter.values[0], parameter.values[2]) for parameter in TAKERS}
    assert {("Parallel", "form"), ("PixelCNN", "compute_dtype"), ("ResidualBlock", "skip"), ("Dense", "dtype")} <= found
    assert {("LatentOptions", "mode"), ("hybrid_latent", "estimator"), ("Latent.uses", "part")} <= found


@pytest.mark.parametrize(("name", "found", "parameter"), TAKERS)
def test_another_name_is_refused(name, found, parameter):
    def call(**given):
        if not inspect.isclass(found):
            return CALLS[name](**given)
        required = () if issubclass(found, Options) else inspect.signature(found).parameters.values()
        others = {p.name: NEEDED.get(p.name, 1) for p in required if p.default is p.empty and p.name not in given}
        return found(**others, **given)

    with pytest.raises(ArgumentError, match=rf"^{parameter}=nonsense: choose one of "):
        call(**{parameter: "nonsense"})


def literals(kind):
    parts = (kind, *typing.get_args(kind))
    return next((typing.get_args(part) for part in parts if typing.get_origin(part) is typing.Literal), ())


def test_type_checkers_know_the_same_names():
    typed = {key: literals(field.type) for key, field in KEYS.items()}
    typed = {key: names for key, names in typed.items() if names}
    assert {"latent.mode", "codebook.family", "codebook.init", "loss.commitment_target"} <= set(typed)
    assert typed == {key: tuple(KEYS[key].metadata["rule"].choices) for key in typed}


@pytest.mark.parametrize("channels", [-1, 2, 5])
def test_another_number_of_channels_is_refused(channels):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    with pytest.raises(ArgumentError, match=rf"^channels={channels}: choose one of 1, 3, 4$"):
        decode_image(file, channels)
    features = tfds.features.FeaturesDict({"image": tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8)})
    with pytest.raises(ArgumentError, match=rf"^channels={channels}: choose one of 0, 1, 3, 4$"):
        ExampleParser(features, "a data set", channels=channels)
