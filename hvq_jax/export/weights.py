"""The arrays of a run by flat dotted names, and their file: `model.safetensors`."""

import dataclasses
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

import hvq_jax
from hvq_jax import autoencoder
from hvq_jax.errors import UserError
from hvq_jax.extras import install_command
from hvq_jax.runs.options import RunOptions, to_dict
from hvq_jax.runs.trained import TrainedRun

FILE = "model.safetensors"


def named_arrays(run: TrainedRun, *, has_prior: bool) -> dict[str, np.ndarray]:
    """Return the arrays of the run's best checkpoints.

    The names are those of Flax's collections, joined by dots: `params.encoder.…`, `params.decoder.…`,
    `params.quantizer.…`, `batch_stats.encoder.…`, `batch_stats.decoder.…`, `quantizer.…` for the quantizer's state,
    and `prior.params.…`; besides these, `codes` `[K, D]` or `[L, K, D]`, the vector of each index, which follows from
    others, and `tables.…`, by which the prior's integers become lengths and residuals.
    """
    tree: dict[str, Any] = {}
    if run.image_shape is not None:
        variables = run.variables
        tree |= {"params": variables.params, **vars(variables.state)}
        tree["codes"] = autoencoder.codes(run.model, variables)
    if has_prior:
        tree |= {"prior": run.prior_params, "tables": run.tables}
    return flat_arrays(tree)


def flat_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by their paths, joined by dots.

    >>> list(flat_arrays({"encoder": {"kernel": np.ones(3)}, "codes": [np.zeros(2)]}))
    ['codes.0', 'encoder.kernel']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """Return a SHA-256 of the names, forms and values of arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def shareable_options(options: RunOptions) -> RunOptions:
    """Return the options without the paths of this machine."""
    data = dataclasses.replace(options.data, data_dir=None, manual_dir=None)
    prior = dataclasses.replace(options.prior, latents=None if options.prior.latents is None else "latents.npz")
    return dataclasses.replace(options, data=data, prior=prior)


def metadata(run: TrainedRun, steps: dict[str, int], arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """Return what the file says of itself, as strings: safetensors stores nothing else."""
    latent = run.options.latent
    about: dict[str, Any] = {
        "hvq_jax": hvq_jax.__version__,
        "jax": jax.__version__,
        "flax": importlib.metadata.version("flax"),
        "latent": latent.mode,
        "family": run.options.codebook.family,
        "num_codes": run.prior.num_codes if run.image_shape is None else run.model.num_codes,
        "dim": latent.dim,
        "latent_shape": list(run.latent_shape),
        "class_names": list(run.class_names),
        "steps": steps,
        "config": to_dict(shareable_options(run.options)),
        "parameters_sha256": fingerprint(arrays),
    }
    if run.image_shape is not None:
        about |= {"image_shape": list(run.image_shape), "factor": run.model.encoder().factor}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}


def write_weights(path: Path, arrays: dict[str, np.ndarray], about: dict[str, str]) -> None:
    """Write arrays to a .safetensors file; raise UserError where the package is not installed."""
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise UserError(f"this needs the package safetensors: {install_command('export')}") from None
    save_file({name: np.array(values, order="C") for name, values in arrays.items()}, path, metadata=about)
