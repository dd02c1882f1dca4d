"""Drawing given all that is kept of a latent, also what comes later in raster order.

`sampling.sample` draws a position given the positions before it. Where something is kept behind a position that is
drawn, such as all codes of a latent whose continuous parts are drawn, that is not the conditional distribution of the
prior: what is kept later says something too. Sampling and importance resampling (Rubin, 1987; Smith and Gelfand, 1992)
corrects it: of M proposals drawn by `sample`, choose one with probability proportional to the probability that the
prior gives to what is kept, each part given what was drawn before it.

    p(drawn | kept) ∝ p(drawn, kept) = Π p(drawn_i | <i) · Π p(kept_i | <i) = q(drawn) · weight

The distribution of the chosen one tends to p(drawn | kept) with M, and is q, the proposals' own, with M = 1. A small
effective number of proposals shows that M is too small; a large one does not prove that M is large enough, since
proposals that all miss where p(drawn | kept) is large may have equal weights.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.errors import ArgumentError
from hvq_jax.priors.prior import Nats, Prior
from hvq_jax.priors.sampling import DEFAULT_OPTIONS, Controls, Kept, SamplingOptions, sample

MOST_PROPOSALS = 4096  # they are drawn together


@struct.dataclass
class ChosenLatents:
    """Latents, each chosen from proposals."""

    tokens: jax.Array  # [B, h, w, L + c] int32
    effective_proposals: jax.Array  # [B] float32, from 1 to M; see `effective_number`


def check_proposals(proposals: int) -> None:
    """Raise ArgumentError unless there can be so many proposals.

    >>> check_proposals(0)
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: proposals=0: must be from 1 to 4096
    """
    if not 1 <= proposals <= MOST_PROPOSALS:
        raise ArgumentError(f"proposals={proposals}", f"must be from 1 to {MOST_PROPOSALS}")


def log_weights(nats: Nats, kept: Kept) -> jax.Array:
    """Return the log-probability `[...]` of what is kept, from the nats `[..., h, w]` of every position.

    >>> nats = Nats(codes=jnp.array([[1.0, 2.0]]), continuous=jnp.array([[4.0, 8.0]]))
    >>> kept = Kept(jnp.zeros((1, 2, 2)), codes=jnp.array([[True, True]]), continuous=jnp.array([[True, False]]))
    >>> log_weights(nats, kept).item()
    -7.0
    """
    of_kept = jnp.where(kept.codes, nats.codes, 0.0) + jnp.where(kept.continuous, nats.continuous, 0.0)
    return -jnp.sum(of_kept, axis=(-2, -1))


def effective_number(log_weights: jax.Array) -> jax.Array:
    """Return the effective number (Σ w)² / Σ w² (Kong, 1992) `[...]` of weights `[..., M]`: M where all are equal.

    >>> effective_number(jnp.array([[0.0, 0.0, 0.0, 0.0], [0.0, -99.0, -99.0, -99.0]])).tolist()
    [4.0, 1.0]
    """
    weights = jax.nn.softmax(log_weights)
    return 1.0 / jnp.sum(jnp.square(weights), axis=-1)


def sample_given_kept(
    prior: Prior,
    variables: Any,
    labels: jax.Array | None,
    keys: jax.Array,
    height: int,
    width: int,
    *,
    kept: Kept,
    proposals: int,
    has_continuous: jax.Array | None = None,
    options: SamplingOptions | Controls = DEFAULT_OPTIONS,
) -> ChosenLatents:
    """Draw a latent for each key given all of `kept`, up to the finite number of proposals.

    The weights are probabilities under the prior's unmodified distribution, whatever the options of the proposals.

    >>> from hvq_jax.priors.pixelcnn import PixelCNN
    >>> prior = Prior(num_codes=5, network=PixelCNN(width=4, num_layers=1))
    >>> tokens, last = jnp.full((7, 2, 3, 1), 4), jnp.zeros((2, 3), bool).at[1, 2].set(True)
    >>> variables, keys = jax.jit(prior.init)(jax.random.key(0), tokens), jax.random.split(jax.random.key(1), 7)
    >>> chosen = sample_given_kept(prior, variables, None, keys, 2, 3, kept=Kept(tokens, last, last), proposals=8)
    >>> chosen.tokens[:, 1, 2, 0].tolist()
    [4, 4, 4, 4, 4, 4, 4]

    Args:
        prior: the model.
        variables: {"params": ...} of `prior`.
        labels: [B] int32 in [0, num_classes), or None where the prior is unconditional.
        keys: [B] PRNG keys.
        height: h, rows of the latent.
        width: w, columns of the latent.
        kept: what is given instead of drawn.
        proposals: M, for each key; B·M latents are drawn together.
        has_continuous: [P, K] bool, which codes have each continuous part; not needed for plain codes.
        options: as in `sample`.

    Raises:
        ArgumentError: as `sample`, or for a number of proposals that is out of range.
    """
    check_proposals(proposals)
    each = jax.vmap(lambda key: jax.random.split(key, proposals + 1))(keys)  # [B, M + 1]

    def repeated(x: jax.Array) -> jax.Array:
        return jnp.repeat(x, proposals, axis=0)

    drawn = sample(
        prior,
        variables,
        None if labels is None else repeated(labels),
        each[:, :proposals].reshape(-1),
        height,
        width,
        has_continuous=has_continuous,
        options=options,
        kept=Kept(repeated(kept.tokens), kept.codes, kept.continuous),
    )
    weights = log_weights(drawn.nats, kept).reshape(len(keys), proposals)
    chosen = jax.vmap(jax.random.categorical)(each[:, proposals], weights)
    tokens = drawn.tokens.reshape(len(keys), proposals, *drawn.tokens.shape[1:])
    return ChosenLatents(tokens[jnp.arange(len(keys)), chosen], effective_number(weights))
