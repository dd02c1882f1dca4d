"""A subject of a row, in its own process; started by `benchmarks.measuring.turns`.

    python -m benchmarks.measuring.subjects SUBJECT ROW FOLDER [--check] [--positions=N] [--torch=SETTINGS]

Our subject writes the weights to FOLDER, where the others read them; --check computes the prior's loss instead of the
row's work. PyTorch draws N positions of samples, and has SETTINGS, the fields of `TorchSettings` as JSON.
"""

import argparse
import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.turns import serve
from benchmarks.peers.torch_settings import TorchSettings
from benchmarks.workloads.rows import OURS, PLAIN, ROWS, TORCH, Row, Subject, make_images, make_indices, make_labels
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.files import read_arrays


def module(name: str) -> Any:
    """Import a module of `benchmarks` only in the process that needs it, because of the library that it imports."""
    return importlib.import_module(f"benchmarks.{name}")


def torch_subject(
    row: Row, work: str, state_dict: dict[str, np.ndarray], positions: int, settings: TorchSettings
) -> Subject:
    """Return PyTorch's subject of a row."""
    subject: Subject
    if row.is_prior:
        positions = positions or row.torch_positions or math.prod(row.shape)
        work = work.removesuffix("_prior")
        subject = module("peers.torch_pixelcnn").subject(
            work, state_dict, make_indices(row), make_labels(row), positions, settings
        )
    else:
        subject = module("peers.torch_autoencoder").subject(
            work, state_dict, make_images(row), make_indices(row), settings
        )
    return subject


def plain_flax_subject(row: Row, state_dict: dict[str, np.ndarray]) -> Subject:
    """Return the plain Flax subject of a row."""
    from hvq_jax.torch_reference.weights import autoencoder_from_torch

    subject: Subject = module("peers.flax_plain").subject(autoencoder_from_torch(state_dict), make_images(row))
    return subject


def main() -> None:
    """Serve the subject named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=[OURS, TORCH, PLAIN])
    parser.add_argument("row", choices=list(ROWS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--positions", type=int, default=0)
    parser.add_argument("--torch", type=json.loads, default={})
    options = parser.parse_args()
    row, weights = ROWS[options.row], options.folder / "weights.npz"
    work = "loss" if options.check else row.work
    if options.subject != TORCH:
        set_cpu_options()
    if options.subject == OURS:
        serve(module("workloads.ours").subject(row, work, weights))
        return
    state_dict = read_arrays(weights)
    if options.subject == TORCH:
        serve(torch_subject(row, work, state_dict, options.positions, TorchSettings(**options.torch)))
    else:
        serve(plain_flax_subject(row, state_dict))


if __name__ == "__main__":
    main()
