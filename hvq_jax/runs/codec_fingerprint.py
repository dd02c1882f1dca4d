"""What the reader of an .hvq file must have in common with its writer, as digests of a few bytes.

The run: its parameters, tables and the options of its models. And the environment that rounds the prior's results,
unless the file is portable: one byte per part, so that a refusal can name it. The checksums in the file catch what
these bytes miss.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

import jax
import jaxlib
import numpy as np

from hvq_jax.codec.file_format import FINGERPRINT_BYTES
from hvq_jax.devices.xla import processor
from hvq_jax.priors.options import PriorOptions
from hvq_jax.runs.trained import TrainedRun

PARTS = ("the versions of JAX", "the kind of device", "the kind of CPU", "the options of XLA")


def run_fingerprint(run: TrainedRun) -> bytes:
    """Return the fingerprint of everything that the latents of a run depend on when they are decoded."""
    digest = hashlib.sha256()
    options = {"latent": run.options.latent, "codebook": run.options.codebook, "network": run.options.network}
    described = {name: _unlike_default(section) for name, section in options.items()}
    described["prior"] = _unlike_default(run.options.prior, PriorOptions)
    shapes = [run.latent_shape, run.image_shape, run.class_names]
    digest.update(json.dumps([described, shapes], sort_keys=True, default=str).encode())
    stored = [run.prior_params, run.tables]
    if run.image_shape:
        stored.append(run.variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(stored):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()[:FINGERPRINT_BYTES]


def _unlike_default(options: Any, kind: Any = None) -> dict[str, Any]:
    """Return the options of a section that differ from their defaults, so that a new option changes nothing."""
    default = (kind or type(options))()
    names = [field.name for field in dataclasses.fields(default)]
    return {name: getattr(options, name) for name in names if getattr(options, name) != getattr(default, name)}


def environment_digests() -> bytes:
    """Return a byte for each of `PARTS`."""
    device = jax.devices()[0]
    settings = ("jax_enable_x64", "jax_disable_most_optimizations")
    flags = sorted(flag for flag in os.environ.get("XLA_FLAGS", "").split() if "timeout" not in flag)
    parts: list[Any] = [
        [jax.__version__, jaxlib.__version__],
        [device.platform, device.device_kind],
        processor(),
        [flags, [bool(jax.config.values.get(name)) for name in settings]],
    ]
    return bytes(hashlib.sha256(json.dumps(part).encode()).digest()[0] for part in parts)
