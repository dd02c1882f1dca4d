"""The rows of the comparison with PyTorch: the kinds of work, their sizes, and the subjects that do the work."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

# A subject's function, and a function from its result to the number that must agree.
Subject = tuple[Callable[[], Any], Callable[[Any], float]]

OURS, TORCH, PLAIN = "ours", "PyTorch", "plain Flax"
NUM_CODES, NUM_CLASSES = 512, 10


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of work with its sizes."""

    title: str
    work: str  # train, encode or decode; train_prior or sample
    shape: tuple[int, ...]  # H, W, C of images; h, w of grids of codes
    batch: int
    bar: float  # the largest acceptable ratio to PyTorch
    dim: int = 256
    factor: int = 4  # image side per side of a grid; the peers' networks have no other
    peers: tuple[str, ...] = (TORCH,)
    torch_positions: int = 0  # number of the h·w positions that PyTorch draws, extrapolated to all; 0: all

    @property
    def is_prior(self) -> bool:
        """Whether this is work of the prior."""
        return len(self.shape) == 2

    @property
    def grid(self) -> tuple[int, int]:
        """The sides (h, w) of its grids of codes."""
        height, width, *channels = self.shape
        return (height // self.factor, width // self.factor) if channels else (height, width)

    @property
    def extrapolation(self) -> float:
        """Factor for PyTorch's time; its sampler takes the same time for every position."""
        return math.prod(self.shape) / self.torch_positions if self.torch_positions else 1.0


ROWS = {
    "train28": Row("training step, 28×28×1, D = 256, batch 128", "train", (28, 28, 1), 128, 1.0, peers=(TORCH, PLAIN)),
    "train32": Row("training step, 32×32×3, D = 64, batch 64", "train", (32, 32, 3), 64, 1.0, dim=64),
    "train32wide": Row("training step, 32×32×3, D = 128, batch 64", "train", (32, 32, 3), 64, 1.0, dim=128),
    "encode": Row("images to codes, 28×28×1, D = 256, batch 128", "encode", (28, 28, 1), 128, 1.0),
    "decode": Row("codes to images, 28×28×1, D = 256, batch 128", "decode", (28, 28, 1), 128, 1.0),
    "prior": Row("training step of the PixelCNN, 7×7, batch 128", "train_prior", (7, 7), 128, 1.0),
    "sample7": Row("64 samples of the PixelCNN, 7×7", "sample", (7, 7), 64, 1 / 40),
    "sample8": Row("64 samples of the PixelCNN, 8×8", "sample", (8, 8), 64, 1 / 40),
    "sample32": Row(
        "16 samples of the PixelCNN, 32×32 (PyTorch: 8 of the 1,024 positions, times 128)",
        "sample",
        (32, 32),
        16,
        1 / 300,
        torch_positions=8,
    ),
}


def make_images(row: Row) -> np.ndarray:
    """Return a batch of noise, uint8; the time does not depend on the content of the images."""
    return np.random.default_rng(0).integers(0, 256, (row.batch, *row.shape), np.uint8)


def make_indices(row: Row) -> np.ndarray:
    """Return a batch of grids of codes, int32."""
    return np.random.default_rng(1).integers(0, NUM_CODES, (row.batch, *row.grid), np.int32)


def make_labels(row: Row) -> np.ndarray:
    """Return a class for each item of the batch, int32."""
    return np.arange(row.batch, dtype=np.int32) % NUM_CLASSES
