"""Reading of a state dict from a file: arrays by key, and nothing else."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvq_jax.errors import UserError
from hvq_jax.files import full_path, open_regular, read_arrays


def read_state_dict(file: str) -> Mapping[str, np.ndarray]:
    """Return the arrays of a `.pt` (needs torch; only weights are read, no code is run) or an `.npz`, by key.

    Raises:
        UserError: there is no such file, or it holds anything but arrays by key.
    """
    path = full_path(file)
    if not path.exists():
        raise UserError(f"{file}: no such file")
    if path.suffix == ".npz":
        return read_arrays(path, advice="it is not a state dict")
    return _read_torch(path)


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: reading a .pt needs torch (pip install torch), or save it as .npz first") from None
    try:
        with open_regular(path) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # torch raises many kinds of errors for files it did not write
        raise UserError(f"{path} is not a state dict: {_reason(error)}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is not a state dict: it holds a {type(content).__name__}")
    most_bytes = path.stat().st_size
    return {str(key): _as_array(path, str(key), value, most_bytes) for key, value in content.items()}


def _as_array(path: Path, key: str, value: Any, most_bytes: int) -> np.ndarray:
    if not hasattr(value, "detach"):
        raise UserError(f"{path} is not a state dict: {key} is of type {type(value).__name__}, no tensor")
    try:
        array = value.detach().numpy()
    except Exception as error:  # a tensor of a kind that NumPy does not have
        raise UserError(f"{path}: {key} cannot be used: {_reason(error)}") from None
    if array.nbytes > most_bytes:  # strides of 0 make an array of any size of a single number
        raise UserError(f"{path}: {key} of shape {array.shape} is larger than the file")
    return array


def _reason(error: Exception) -> str:
    """Say in one line what torch says in many."""
    if needed := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it needs the Python object {needed[1]}; save the module's state_dict() alone"
    first_sentence = (str(error).splitlines() or ["it is empty or cut off"])[0].partition(". ")[0]
    return f"{type(error).__name__}: {first_sentence}"
