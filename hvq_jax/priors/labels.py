"""Class labels of a prior: -1 stands for no class, in training now and then and for classifier-free guidance."""

from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.errors import UserError

NO_CLASS = -1


class Conditional(Protocol):
    """What may be conditional on a class."""

    num_classes: int  # 0: unconditional


def check_labels(network: Conditional, labels: jax.Array | None) -> None:
    """Raises UserError unless labels are there exactly where the network is conditional."""
    if (labels is not None) != (network.num_classes > 0):
        given = "no labels" if labels is None else "labels"
        raise UserError(
            f"{type(network).__name__} with num_classes={network.num_classes} was given {given}: pass labels exactly "
            "when num_classes is positive"
        )


def embedded_labels(embedding: nn.Embed, labels: jax.Array) -> jax.Array:
    """`[B, features]` of labels `[B]` int32: zero for NO_CLASS (so it costs no parameter), NaN for one out of range."""
    table = jnp.asarray(embedding.embedding)
    rows = table.at[labels].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return jnp.where(labels[:, None] == NO_CLASS, 0.0, rows)
