"""Compare thresholds of revival: relative to the mean count, as the default, and one assignment per step.

    python -m studies.codebooks.revival --runs=runs/revival

Trains `vq` with 64 to 8,192 codes for two epochs of the embedded images, with 784 latent positions per step, and writes
`revival.json` and `revival.md` to `studies/codebooks`. Run it again to resume.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, TypedDict

import jax
import numpy as np

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.command import exit_status
from hvq_jax.data.datasets import ImageDataset, load_dataset
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.files import read_json, write_json, write_text
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.quantizers import CodebookOptions, LatentOptions, codebook
from hvq_jax.quantizers.codebook import MovingAverages
from hvq_jax.quantizers.learning import MovingAverageRule
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.logging import read_records, set_quiet
from hvq_jax.training.loop import RunContext, fit
from hvq_jax.training.options import FitOptions
from studies import find_folder
from studies.comparison import name_device
from studies.markdown import markdown

NUM_CODES = tuple(64 * 2**power for power in range(8))
OPTIONS = FitOptions(batch_size=16, num_epochs=2, log_every_steps=100, check_replicas_every_steps=0)

_COLUMNS = {
    "train_mse": "training MSE",
    "validation_mse": "validation MSE",
    "train_commitment": "training commitment",
    "validation_commitment": "validation commitment",
    "codes_used": "codes used",
    "perplexity": "perplexity",
    "revived": "share revived per step",
}


class Measured(TypedDict):
    """The result of one training."""

    devices: str
    jax: str
    train_mse: float
    validation_mse: float
    train_commitment: float
    validation_commitment: float
    codes_used: float
    perplexity: float
    revived: float


Results = dict[str, dict[str, Measured]]  # by number of codes and threshold


PATH = find_folder("codebooks") / "revival.json"


class AbsoluteThreshold(MovingAverageRule):
    """Moving averages with the threshold of one assignment per step, whatever the mean is."""

    def revive(
        self,
        params: Any,
        state: MovingAverages,
        frequency: jax.Array,
        vectors: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[MovingAverages, jax.Array, jax.Array]:
        """Move codes with less than one assignment per step onto encoder outputs."""
        del params
        assert axis_name is None  # the vectors of this device are all
        assert mask is None
        num_codes, dim = state.codes.shape
        one = num_codes * dim / vectors.size  # in units of the mean
        return codebook.revive(state, frequency, vectors, key, below=one)


THRESHOLDS = {"default": "ema", "one per step": "studies.codebooks.revival:AbsoluteThreshold"}


def measured(num_codes: int, learning: str, dataset: ImageDataset, workdir: Path) -> Measured:
    """Train with one codebook in `workdir`; return errors, codes in use and revived share at the end.

    Training errors are means over the last 100 steps, before each of them.
    """
    latent_options = LatentOptions(mode="vq", num_codes=num_codes, dim=32)
    model = Autoencoder(
        dataset.image_shape, NetworkOptions(num_blocks=0), latent_options, CodebookOptions(learning=learning)
    )
    stage = AutoencoderStage(model, dataset.validation.read(np.arange(8))[0])
    workdir.mkdir(parents=True, exist_ok=True)
    run = RunContext(workdir, seed=0, parallel=Parallel("jit"), preemption=Preemption())
    fit(stage, dataset.train, dataset.validation, options=OPTIONS, run=run)
    last = {record["split"]: record for record in read_records(workdir)}
    train, validation = last["train"], last["validation"]
    return {
        "devices": name_device(),
        "jax": jax.__version__,
        "train_mse": train["reconstruction"],
        "validation_mse": validation["mse"],
        "train_commitment": train["commitment"],
        "validation_commitment": validation["commitment"],
        "codes_used": validation["codes_used"],
        "perplexity": validation["perplexity"],
        "revived": train["revived_codes_per_step"] / num_codes,
    }


def read_results(path: Path = PATH) -> Results:
    """Return the results so far; raise UserError if their file is damaged."""
    return read_json(path, Results, advice="delete it, and train again") or {}


def table(results: Results) -> str:
    """Return one row per number of codes and threshold."""
    rows = [
        _row(num_codes, name, dict(results[str(num_codes)][name]))
        for num_codes in NUM_CODES
        for name in THRESHOLDS
        if name in results.get(str(num_codes), {})
    ]
    return markdown(["codes", "threshold", "device", "JAX", *_COLUMNS.values()], rows)


def _row(num_codes: int, threshold: str, found: dict[str, Any]) -> list[str]:
    return [f"{num_codes:,}", threshold, found["devices"], found["jax"], *(f"{found[key]:.3g}" for key in _COLUMNS)]


def main(arguments: list[str]) -> None:
    """Train what has no result yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    options = parser.parse_args(arguments)
    set_quiet()
    runs = options.runs.absolute()
    dataset = load_dataset("fashion_mnist_mini", data_dir=runs / "data")
    results = read_results()
    for num_codes in NUM_CODES:
        of_codes = results.setdefault(str(num_codes), {})
        for name, learning in THRESHOLDS.items():
            if name not in of_codes:
                workdir = runs / f"{num_codes}-{name.replace(' ', '_')}"
                of_codes[name] = measured(num_codes, learning, dataset, workdir)
                write_json(PATH, results)
    text = table(results)
    write_text(PATH.with_suffix(".md"), text)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
