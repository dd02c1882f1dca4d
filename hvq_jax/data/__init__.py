"""Image data sets and their batches, as uint8 arrays on the host."""

from hvq_jax.data.datasets import ImageDataset, Split, load_dataset
from hvq_jax.data.pipeline import Batch, eval_batches, steps_per_epoch, train_batches

__all__ = [
    "Batch",
    "ImageDataset",
    "Split",
    "eval_batches",
    "load_dataset",
    "steps_per_epoch",
    "train_batches",
]
