"""Class labels of a prior: -1 stands for no class, used by label dropout in training and classifier-free guidance."""

from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.errors import UserError

NO_CLASS = -1


class Conditional(Protocol):
    """A network that may be conditional on a class."""

    num_classes: int  # 0: unconditional


def check_labels(network: Conditional, labels: jax.Array | None) -> None:
    """Raise UserError unless labels are given if and only if the network is conditional."""
    if (labels is not None) != (network.num_classes > 0):
        given = "no labels" if labels is None else "labels"
        raise UserError(
            f"{type(network).__name__} with num_classes={network.num_classes} was given {given}: pass labels if and "
            "only if num_classes is positive"
        )


def embedded_labels(embedding: nn.Embed, labels: jax.Array) -> jax.Array:
    """Embed labels `[B]` int32 as `[B, features]`: zero for NO_CLASS (without a parameter), NaN if out of range."""
    table = jnp.asarray(embedding.embedding)
    rows = table.at[labels].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return jnp.where(labels[:, None] == NO_CLASS, 0.0, rows)
