"""Measure the rate and distortion of the continuous part, with signed lengths in G bins or residuals in steps.

    python -m studies.rates.measure --workdir=RUN --name=projected --manual_dir=/usr/share/datasets/fashion-mnist

Encodes the data set of a trained run, fits bins to its training latents, and decodes the test images from what would be
transmitted. Writes `studies/rates/results/NAME.json`. No prior is needed: bits are those of static codes, from the
frequencies in the training split of codes, of bins given code and group, and of residuals given the channel.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.command import exit_status
from hvq_jax.data.datasets import open_dataset
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import UserError
from hvq_jax.files import write_json
from hvq_jax.images import to_float
from hvq_jax.latents import CODE, PROJECTION, Z_E
from hvq_jax.priors.options import TokenOptions
from hvq_jax.priors.tokens import Tables, from_tokens
from hvq_jax.runs.latent_data import LatentData, latent_data, tokenize
from hvq_jax.runs.latent_files import read_latents
from hvq_jax.runs.summary import read_summary
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.logging import set_quiet
from studies import find_results
from studies.comparison import PLACE
from studies.run_metrics import radial_share

NUM_BINS = (1, 2, 4, 8, 16, 32, 64)
STEPS = (1.6, 0.8, 0.4, 0.2, 0.1, 0.05)
_BATCH = 500


class Setting(TypedDict):
    """The distortion and the rate of one way to round the continuous part."""

    mse: float
    bits_of_continuous: float  # per image


class Measurement(TypedDict):
    """The content of a result, NAME.json."""

    latent: str
    devices: str  # of the training
    jax: str
    bits_of_codes: float  # per image
    share_outside: float
    mse_not_rounded: float
    settings: dict[str, Setting]
    length_mean: NotRequired[float]
    length_spread: NotRequired[float]
    spread_within_codes: NotRequired[float]
    radial_share: NotRequired[float]


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


def list_settings(run: TrainedRun) -> dict[str, TokenOptions]:
    """Return every setting to round the continuous part of a run to integers."""
    row = run.model.row
    settings: dict[str, TokenOptions] = {}
    if row.uses(PROJECTION):
        settings |= {f"{g} a code": TokenOptions(num_bins=g, bins_per_code=True) for g in NUM_BINS}
        settings |= {f"{g} for all": TokenOptions(num_bins=g, bins_per_code=False) for g in NUM_BINS}
    if row.uses(Z_E):
        settings |= {f"step {step:g}": TokenOptions(residual_step=step) for step in STEPS}
    return settings


def continuous_bits(latents: LatentData, groups: int) -> float:
    """Return the bits of the continuous parts of all test latents, by the frequencies of the training latents.

    Args:
        latents: tokens, the code first and then `groups` bins and D residuals, where the latent has them.
        groups: number of lengths per position.
    """
    tables = latents.tables
    first_residual = 1 + (groups if tables.has_bins else 0)
    bins = _tokens_and_rows(latents, slice(1, first_residual), np.asarray(tables.has_length), by_code=True)
    residuals = _tokens_and_rows(latents, slice(first_residual, None), np.asarray(tables.has_residual), by_code=False)
    bits = 0.0
    for (train, train_rows), (test, test_rows) in (bins, residuals):
        if test.size:
            lowest = min(part.min() for part in (train, test) if part.size)
            bits += static_bits(train - lowest, test - lowest, (train_rows, test_rows))
    return bits


def _tokens_and_rows(
    latents: LatentData, channels: slice, has_part: np.ndarray, *, by_code: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the tokens `[n, c]` of the train and test splits where the code has them, and their conditions."""
    found = []
    for split in (latents.train, latents.test):
        codes = split.items[..., 0].astype(int)
        chosen = has_part[codes]
        tokens = split.items[..., channels][chosen].astype(int)
        channel = np.arange(tokens.shape[-1])
        rows = codes[chosen][:, None] * tokens.shape[-1] + channel if by_code else channel
        found.append((tokens, np.broadcast_to(rows, tokens.shape)))
    return found


def decoder_error(run: TrainedRun) -> Callable[[np.ndarray, np.ndarray, Tables], float]:
    """Return a function that maps images `[N, H, W, C]`, their tokens and tables to the MSE."""

    # Two functions, so that the decoder is compiled once instead of for each size of the tables.
    @jax.jit
    def received(variables: Any, tokens: jax.Array, tables: Tables) -> jax.Array:
        vectors, groups = partial(autoencoder.vectors, run.model, variables), run.options.latent.projection_groups
        return from_tokens(tokens.astype(jnp.int32), tables, vectors, groups)[0]

    @jax.jit
    def squared(variables: Any, images: jax.Array, z_bar: jax.Array) -> jax.Array:
        errors = jnp.square(autoencoder.decode(run.model, variables, z_bar) - to_float(images))
        return jnp.mean(errors, axis=(1, 2, 3))

    def mse(images: np.ndarray, tokens: np.ndarray, tables: Tables) -> float:
        errors = []
        for i in range(0, len(images), _BATCH):
            batch = slice(i, i + _BATCH)
            z_bar = received(run.variables, tokens[batch], tables)
            errors.append(squared(run.variables, images[batch], z_bar))
        return float(np.concatenate(errors).mean())

    return mse


def measured(run: TrainedRun, data: dict[str, Any]) -> dict[str, Any]:
    """Return the statistics of ρ, and the MSE and bits per image of every setting.

    Args:
        run: a run whose autoencoder is trained.
        data: fields of `DataOptions` to use in place of the run's own.
    """
    dataset, row = open_dataset(dataclasses.replace(run.options.data, **data)), run.model.row
    latent_data(
        run.model,
        lambda: run.variables,
        dataset,
        workdir=run.workdir,
        checkpoint_step=run.autoencoder_step,
        batch_size=_BATCH,
        options=run.options.prior,
        parallel=Parallel("jit"),
        preemption=Preemption(),
    )
    stored = read_latents(run.workdir, run.model, len(dataset.class_names))
    images = dataset.test.read(np.arange(len(dataset.test)))[0]
    indices, mse = stored["test_indices"], decoder_error(run)
    rows = {}
    for name, setting in list_settings(run).items():
        latents = tokenize(row, stored, setting)
        rows[name] = {
            "mse": mse(images, latents.test.items, latents.tables),
            "bits_of_continuous": continuous_bits(latents, run.model.latent_options.projection_groups) / len(images),
        }
        print(name, rows[name], flush=True)
    is_plain = np.asarray(row.codes_with(CODE, stored["frequent"]))
    has_length = np.asarray(row.codes_with(PROJECTION, stored["frequent"]))
    return {
        "latent": run.model.latent_options.mode,
        "bits_of_codes": static_bits(stored["train_indices"], indices) / len(images),
        "share_outside": float(np.mean(~is_plain[indices])),
        **(lengths(indices, stored["test_lengths"], has_length) if row.uses(PROJECTION) else {}),
        "settings": rows,
    }


def lengths(codes: np.ndarray, rho: np.ndarray, has_length: np.ndarray) -> dict[str, float]:
    """Return mean and deviation of ρ, and its deviation from the mean per code and group.

    Args:
        codes: [N, h, w] int32.
        rho: [N, h, w, g] float32, their signed lengths.
        has_length: [K] bool, the codes whose lengths count.
    """
    chosen = has_length[codes]
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
    if not list_settings(run):
        mode = run.model.latent_options.mode
        raise UserError(f"--workdir={options.workdir}: its latent, {mode}, has no continuous part to measure")
    summary: dict[str, Any] = {**read_summary(run.workdir)}
    if "autoencoder" not in summary:
        raise UserError(f"--workdir={options.workdir}: its autoencoder is not fully trained; run train.py on it")
    test = summary["autoencoder"]["test"]
    data = {} if options.manual_dir is None else {"manual_dir": options.manual_dir}
    result = measured(run, data)
    result |= {"mse_not_rounded": test["mse"], **{name: summary[name] for name in PLACE}}
    if run.model.row.frequent == run.model.row.rare == PROJECTION:  # the loss terms are of the same positions
        to_projection = run.model.loss.commitment_target == "projection"
        result["radial_share"] = radial_share(test["projection"], test["commitment"], to_projection)
    find_results("rates").mkdir(parents=True, exist_ok=True)
    write_json(find_results("rates") / f"{options.name}.json", result)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
