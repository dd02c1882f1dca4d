"""Metrics of the stability of a run."""

import dataclasses
import math

import numpy as np

WINDOW = 101  # steps in the trailing median
FACTOR = 3.0  # a spike is a loss above this multiple of the median
FIRST = 200  # first steps, which are not checked: every loss falls fast at first


def spikes(losses: np.ndarray) -> np.ndarray:
    """Return the indices of steps, from step 200 on, whose loss is above 3 times the median of the 101 before.

    A loss that is not finite is a spike.

    Args:
        losses: `[N]`, of steps 1 to N.
    """
    return FIRST + np.flatnonzero(~(peaks(losses) <= FACTOR))


def peaks(losses: np.ndarray) -> np.ndarray:
    """Return the ratio `[N - 200]` of each of `losses` `[N]`, from step 200 on, to the median of the 101 before it."""
    if len(losses) <= FIRST:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(losses, WINDOW)
    return losses[FIRST:] / np.nanmedian(windows[FIRST - WINDOW : -1], axis=1)


@dataclasses.dataclass(frozen=True)
class Stability:
    """The stability of one run."""

    num_steps: int
    num_spikes: int
    first_spike: int | None  # step, from 1
    peak: float  # the largest loss over the median of the 101 before it, from step 200 on
    loss_ratio: float  # largest over median loss, from step 200 on; large if the loss falls for long
    gradient_norm_ratio: float  # the same of the gradient norm

    def as_dict(self) -> dict[str, float | None]:
        """Return the fields by name."""
        return dataclasses.asdict(self)


def stability(losses: np.ndarray, gradient_norms: np.ndarray) -> Stability:
    """Return the stability of a run, from `losses` and `gradient_norms` `[N]` of every step."""
    found = spikes(losses)
    return Stability(
        num_steps=len(losses),
        num_spikes=len(found),
        first_spike=int(found[0]) + 1 if len(found) else None,
        peak=float(np.max(peaks(losses), initial=0.0)),
        loss_ratio=_worst_over_median(losses[FIRST:]),
        gradient_norm_ratio=_worst_over_median(gradient_norms[FIRST:]),
    )


def _worst_over_median(values: np.ndarray) -> float:
    return float(np.max(values) / np.median(values)) if len(values) else math.nan


def radial_share(projection: float, commitment: float, to_projection: bool) -> float:
    """Return E[(α − 1)²‖e‖²] / E‖z_e − e‖², from the unweighted loss terms of the latent `projected`.

    This is the share of the latent error that the projection removes; 1/D if the error has no preferred direction. By
    Pythagoras, a commitment `to_projection` lacks the radial part, which a commitment to the code contains.
    """
    whole = commitment + projection if to_projection else commitment
    return projection / whole if whole else 0.0
