"""Measure the rate and distortion of the continuous part, with signed lengths in G bins or residuals in steps.

    python -m studies.rates.measure --workdir=RUN --name=projected --manual_dir=/usr/share/datasets/fashion-mnist

Encodes the data set of a trained run, fits bins to its training latents, and decodes the test images from what would be
transmitted. Writes `studies/rates/results/NAME.json`. No prior is needed: bits are those of static codes, from the
frequencies in the training split of codes, of bins given code and group, and of residuals given the channel.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.data.datasets import load_dataset
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import UserError, exit_status
from hvq_jax.images import to_float
from hvq_jax.priors.tokens import Tables, from_tokens, to_tokens
from hvq_jax.runs.latent_data import FILE, ContinuousOptions, has_residual, latent_data, read_arrays, tables_of
from hvq_jax.runs.options import continuous_options_of
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.runs.workdir import read_json
from hvq_jax.training.logging import set_quiet
from studies import results_of
from studies.figures import radial_share

NUM_BINS = (1, 2, 4, 8, 16, 32, 64)
STEPS = (1.6, 0.8, 0.4, 0.2, 0.1, 0.05)
_BATCH = 500


def static_bits(train: np.ndarray, test: np.ndarray, given: tuple[np.ndarray, np.ndarray] | None = None) -> float:
    """Return the bits of all of `test` by the frequencies in `train`, with one added to each count.

    Args:
        train: integers from 0, of any shape.
        test: the same.
        given: what `train` and `test` are conditioned on: integers from 0, of the same shapes.
    """
    conditions = (np.zeros_like(train), np.zeros_like(test)) if given is None else given
    size = int(max(train.max(initial=0), test.max(initial=0))) + 1
    rows = int(max(conditions[0].max(initial=0), conditions[1].max(initial=0))) + 1
    counts = np.ones((rows, size))
    np.add.at(counts, (conditions[0].ravel(), train.ravel()), 1)
    log_p = np.log2(counts / counts.sum(axis=1, keepdims=True))
    return float(-log_p[conditions[1].ravel(), test.ravel()].sum())


def settings_of(run: TrainedRun) -> dict[str, ContinuousOptions]:
    """Return every setting to round the continuous part of a run to integers."""
    if has_residual(run.model.latent):
        return {f"step {step:g}": ContinuousOptions(step=step) for step in STEPS}
    per_code = {f"{g} a code": ContinuousOptions(g, bins_per_code=True) for g in NUM_BINS}
    shared = {f"{g} for all": ContinuousOptions(g, bins_per_code=False) for g in NUM_BINS}
    return {**per_code, **shared}


def continuous_bits(stored: dict[str, np.ndarray], tables: Tables) -> float:
    """Return the bits of the continuous parts of all test latents, by the frequencies of the training latents."""
    parts, conditions = [], []
    for split in ("train", "test"):
        indices, continuous = stored[f"{split}_indices"], stored[f"{split}_continuous"]
        chosen = stored["present"][indices]
        codes = indices[chosen]
        if tables.step:  # stored only where there is one
            whole = np.round(continuous / tables.step).astype(int)
            channels = np.broadcast_to(np.arange(whole.shape[-1]), whole.shape)
            parts.append(whole)
            conditions.append(channels)
        else:
            tokens = np.asarray(jax.jit(to_tokens)(indices, continuous, tables))[chosen]
            parts.append(tokens[..., 1:])
            groups = parts[-1].shape[-1]
            conditions.append(codes[:, None] * groups + np.arange(groups))
    if not parts[1].size:
        return 0.0
    lowest = min(part.min() for part in parts)
    return static_bits(parts[0] - lowest, parts[1] - lowest, (conditions[0], conditions[1]))


def decoder_error(run: TrainedRun) -> Callable[[np.ndarray, np.ndarray, np.ndarray, Tables], float]:
    """Return a function that maps images `[N, H, W, C]`, codes, continuous parts and tables to the MSE."""

    # Two functions, so that the decoder is compiled once instead of for each size of the tables.
    @jax.jit
    def received(variables: Any, indices: jax.Array, parts: jax.Array, tables: Tables) -> jax.Array:
        codes, groups = autoencoder.codes(run.model, variables), run.model.latent.projection_groups
        return from_tokens(to_tokens(indices, parts, tables), tables, codes, groups)[0]

    @jax.jit
    def squared(variables: Any, images: jax.Array, z_bar: jax.Array) -> jax.Array:
        errors = jnp.square(autoencoder.decode(run.model, variables, z_bar) - to_float(images))
        return jnp.mean(errors, axis=(1, 2, 3))

    def mse(images: np.ndarray, indices: np.ndarray, parts: np.ndarray, tables: Tables) -> float:
        errors = []
        for i in range(0, len(images), _BATCH):
            batch = slice(i, i + _BATCH)
            z_bar = received(run.variables, indices[batch], parts[batch], tables)
            errors.append(squared(run.variables, images[batch], z_bar))
        return float(np.concatenate(errors).mean())

    return mse


def everywhere(stored: dict[str, np.ndarray], split: str) -> np.ndarray:
    """Return continuous parts `[N, h, w, c]`, with zeros where no residual is stored."""
    indices, continuous = stored[f"{split}_indices"], stored[f"{split}_continuous"]
    if continuous.ndim == 4:
        return continuous
    whole = np.zeros((*indices.shape, continuous.shape[-1]), np.float32)
    whole[stored["present"][indices]] = continuous
    return whole


def measured(run: TrainedRun, data: dict[str, Any]) -> dict[str, Any]:
    """Return the statistics of ρ, and the MSE and bits per image of every setting."""
    dataset = load_dataset(**{**run.config.data.to_dict(), **data})
    latent_data(
        run.model,
        run.variables,
        dataset,
        workdir=run.workdir,
        checkpoint_step=run.autoencoder_step,
        batch_size=_BATCH,
        options=continuous_options_of(run.config),
        parallel=Parallel("jit"),
        preemption=Preemption(),
    )
    stored = read_arrays(run.workdir / FILE)
    images = dataset.test.read(np.arange(len(dataset.test)))[0]
    indices, parts, mse = stored["test_indices"], everywhere(stored, "test"), decoder_error(run)
    rows = {}
    for name, setting in settings_of(run).items():
        tables = tables_of(run.model.latent, stored, setting)
        rows[name] = {
            "mse": mse(images, indices, parts, tables),
            "bits_of_continuous": continuous_bits(stored, tables) / len(images),
        }
        print(name, rows[name], flush=True)
    return {
        "latent": run.model.latent.mode,
        "bits_of_codes": static_bits(stored["train_indices"], indices) / len(images),
        "share_outside": float(stored["present"][indices].mean()),
        **({} if has_residual(run.model.latent) else lengths(stored)),
        "settings": rows,
    }


def lengths(stored: dict[str, np.ndarray]) -> dict[str, float]:
    """Return mean and deviation of ρ over the test split, and its deviation from the mean per code and group."""
    codes, rho = (stored[f"test_{name}"] for name in ("indices", "continuous"))
    chosen = stored["present"][codes]
    groups = rho.shape[-1]
    rows, rho = (codes[chosen][:, None] * groups + np.arange(groups)).ravel(), rho[chosen].ravel()
    means = np.bincount(rows, rho) / np.maximum(np.bincount(rows), 1)
    inside = np.mean(np.square(rho - means[rows]))
    return {
        "length_mean": float(rho.mean()),
        "length_spread": float(rho.std()),
        "spread_within_codes": float(np.sqrt(inside)),
    }


def main(arguments: list[str]) -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="workdir of a trained autoencoder")
    parser.add_argument("--name", required=True, help="name of the result")
    parser.add_argument("--manual_dir", help="the published files of the data set")
    options = parser.parse_args(arguments)
    set_quiet()
    run = TrainedRun.load(options.workdir)
    if run.model.latent.mode == "vq":
        raise UserError(f"--workdir={options.workdir}: vq has no continuous part to measure")
    summary = read_json(run.workdir / "summary.json") or {}
    if "autoencoder" not in summary:
        raise UserError(f"--workdir={options.workdir}: its autoencoder is not fully trained; run train.py on it")
    test = summary["autoencoder"]["test"]
    data = {} if options.manual_dir is None else {"manual_dir": options.manual_dir}
    result = measured(run, data)
    result["mse_not_rounded"] = test["mse"]
    if run.model.latent.mode == "projected":
        to_projection = run.config.loss.commitment_target == "projection"
        result["radial_share"] = radial_share(test["projection"], test["commitment"], to_projection)
    results_of("rates").mkdir(parents=True, exist_ok=True)
    (results_of("rates") / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
