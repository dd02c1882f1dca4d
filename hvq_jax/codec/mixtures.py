"""Residuals under a mixture of Gaussians as binary decisions, channel by channel."""

import dataclasses

import numpy as np
from scipy.special import ndtr

from hvq_jax.codec.decisions import Decisions
from hvq_jax.priors.tokens import LARGEST_MULTIPLE

MOST_DIGITS = LARGEST_MULTIPLE.bit_length()  # of a residual's magnitude, in multiples of the step
_LEAST_LOG = -700.0  # about the log of the least float64


@dataclasses.dataclass(frozen=True)
class Mixture:
    """M Gaussians with independent channels for each of n residuals, in multiples of the step; float64."""

    log_weights: np.ndarray  # [n, M]
    means: np.ndarray  # [n, M, D]
    deviations: np.ndarray  # [n, M, D]

    def of(self, rows: np.ndarray) -> "Mixture":
        """Return the distributions of these rows, int `[n]`."""
        return Mixture(self.log_weights[rows], self.means[rows], self.deviations[rows])


def num_digits(residuals: np.ndarray) -> int:
    """Return the least r such that all `residuals`, int, lie in [-2^r, 2^r)."""
    return max(int(residuals.max(initial=0)).bit_length(), int(-1 - residuals.min(initial=-1)).bit_length())


def code_residuals(decisions: Decisions, mixture: Mixture, digits: int, residuals: np.ndarray | None) -> np.ndarray:
    """Return the next residuals, `[n, D]` int32 in [-2^digits, 2^digits), in multiples of the step.

    Channels are independent given the component, so that

        p(c_j | c_1 … c_j−1) = Σ_m w_m p_m(c_j) / Σ_m w_m        with w_m = w_m^0 p_m(c_1) … p_m(c_j−1).

    Each channel is decided by bisecting the range.

    Args:
        decisions: the stream.
        mixture: the distribution of each.
        digits: r.
        residuals: [n, D] int, for a writer; None for a reader.
    """
    log_weights = mixture.log_weights - mixture.log_weights.max(axis=-1, keepdims=True)
    channels = []
    for channel in range(mixture.means.shape[-1]):
        means, deviations = mixture.means[..., channel], mixture.deviations[..., channel]
        given = None if residuals is None else residuals[:, channel]
        drawn, masses = _code_channel(decisions, np.exp(log_weights), means, deviations, digits, given)
        channels.append(drawn)
        with np.errstate(divide="ignore"):
            log_weights = log_weights + np.maximum(np.log(masses), _LEAST_LOG)
        log_weights -= log_weights.max(axis=-1, keepdims=True)
    return np.stack(channels, axis=-1)


def _code_channel(
    decisions: Decisions,
    weights: np.ndarray,
    means: np.ndarray,
    deviations: np.ndarray,
    digits: int,
    given: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the residuals `[n]` int32 of a channel, and the mass of their cells in each component, `[n, M]`."""
    start = np.full(len(weights), -(1 << digits))
    lower, upper = _Edge.at(start, means, deviations), _Edge.at(start + (2 << digits), means, deviations)
    masses = lower.mass_to(upper)
    for digit in range(digits, -1, -1):
        middle = start + (1 << digit)
        edge = _Edge.at(middle, means, deviations)
        above, below = edge.mass_to(upper), lower.mass_to(edge)
        bits = None if given is None else given >= middle
        is_above = decisions.decide((weights * above).sum(-1), (weights * below).sum(-1), bits)
        start = np.where(is_above, middle, start)
        lower, upper = lower.replaced(edge, is_above), upper.replaced(edge, ~is_above)
        masses = np.where(is_above[:, None], above, below)
    return start.astype(np.int32), masses


@dataclasses.dataclass(frozen=True)
class _Edge:
    """The edge below a multiple, as the mass of each component to its left and to its right, `[n, M]`."""

    left: np.ndarray
    right: np.ndarray

    @classmethod
    def at(cls, multiples: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> "_Edge":
        distances = (multiples[:, None] - 0.5 - means) / deviations
        return cls(ndtr(distances), ndtr(-distances))

    def mass_to(self, upper: "_Edge") -> np.ndarray:
        """Return the mass between this edge and one above it, by the tail in which it is exact."""
        return np.maximum(np.where(self.right < 0.5, self.right - upper.right, upper.left - self.left), 0.0)

    def replaced(self, other: "_Edge", where: np.ndarray) -> "_Edge":
        """Return this edge, or the other one `where` `[n]` bool."""
        where = where[:, None]
        return _Edge(np.where(where, other.left, self.left), np.where(where, other.right, self.right))
