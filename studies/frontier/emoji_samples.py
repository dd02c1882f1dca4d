"""Train on emoji, and keep the run's summary and samples for the study's page.

    apt-get install fonts-noto-color-emoji
    python -m studies.frontier.emoji_samples --runs=runs/frontier

A quarter of an hour on two cores. Run it again to resume.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import quickstart
from hvq_jax.command import exit_status
from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options
from hvq_jax.files import write_arrays
from hvq_jax.layout import SAMPLES, SUMMARY
from hvq_jax.runs.open import run_experiment
from studies import find_folder
from studies.frontier.emoji import FONT, make_arrays

KEPT = {SUMMARY: Path("results", "emoji", SUMMARY), SAMPLES: Path("emoji.png")}  # in the folder of the study


def get_config() -> ConfigDict:
    """Return the options of the run, but for its data."""
    config = quickstart.get_config("projected")
    config.augment.flip = True
    config.autoencoder.update(batch_size=64, num_epochs=250, learning_rate=3e-3)
    config.prior.update(batch_size=64, num_epochs=100, learning_rate=2e-3, num_layers=8)
    return config


def make(arrays: Mapping[str, np.ndarray], config: ConfigDict, runs: Path, study: Path) -> None:
    """Train on `arrays` in `runs`/emoji, or resume it, and copy what is kept to the folder of the study."""
    data, workdir = runs.absolute() / "emoji.npz", runs.absolute() / "emoji"
    runs.mkdir(parents=True, exist_ok=True)
    if not data.exists():  # a copy of another time would be prepared anew
        write_arrays(data, arrays)
    config.data.name, config.data.manual_dir = "image_arrays", str(data)
    run_experiment(config, str(workdir))
    for name, kept in KEPT.items():
        (study / kept).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workdir / name, study / kept)


def main(arguments: list[str]) -> None:
    """Train, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"), help="default: runs/frontier")
    parser.add_argument("--font", type=Path, default=FONT, help=f"default: {FONT}")
    options = parser.parse_args(arguments)
    set_cpu_options()
    keep_compiled_programs()
    make(make_arrays(options.font), get_config(), options.runs, find_folder("frontier"))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
