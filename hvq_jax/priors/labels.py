"""Class labels of a prior: -1 stands for no class, used by label dropout in training and classifier-free guidance."""

from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.errors import ArgumentError

NO_CLASS = -1


class Conditional(Protocol):
    """A network that may be conditional on a class."""

    num_classes: int  # 0: unconditional


def check_labels(network: Conditional, labels: jax.Array | None) -> None:
    """Raise ArgumentError unless labels are given if and only if the network is conditional.

    >>> from hvq_jax.priors.pixelcnn import PixelCNN
    >>> check_labels(PixelCNN(num_classes=10), None)
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: labels=None: PixelCNN with num_classes=10 needs a label for each latent
    """
    name = f"{type(network).__name__} with num_classes={network.num_classes}"
    if labels is None and network.num_classes:
        raise ArgumentError("labels=None", f"{name} needs a label for each latent")
    if labels is not None and not network.num_classes:
        raise ArgumentError("labels", f"{name} takes none")


def embedded_labels(embedding: nn.Embed, labels: jax.Array) -> jax.Array:
    """Embed labels `[B]` int32 as `[B, features]`: zero for NO_CLASS (without a parameter), NaN if out of range.

    >>> embedding = nn.Embed(2, 1).bind({"params": {"embedding": jnp.array([[5.0], [7.0]])}})
    >>> embedded_labels(embedding, jnp.array([1, NO_CLASS])).tolist()
    [[7.0], [0.0]]
    """
    table = jnp.asarray(embedding.embedding)
    rows = table.at[labels].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return jnp.where(labels[:, None] == NO_CLASS, 0.0, rows)
