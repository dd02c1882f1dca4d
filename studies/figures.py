"""What a run's records say about its stability."""

import dataclasses
import math

import numpy as np

WINDOW = 101  # steps, of the trailing median
FACTOR = 3.0  # a loss so many times the median is a spike
FIRST = 200  # steps that are not judged: every loss falls fast at first


def spikes(losses: np.ndarray) -> np.ndarray:
    """Indices of steps whose loss is above 3 times the median of the 101 steps before, from step 200 on.

    `losses` `[N]`, of steps 1 to N. One that is not finite is a spike.
    """
    return FIRST + np.flatnonzero(~(peaks(losses) <= FACTOR))


def peaks(losses: np.ndarray) -> np.ndarray:
    """Each loss `[N]` over the median of the 101 before it, from step 200 on: `[N - 200]`."""
    if len(losses) <= FIRST:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(losses, WINDOW)
    return losses[FIRST:] / np.nanmedian(windows[FIRST - WINDOW : -1], axis=1)


@dataclasses.dataclass(frozen=True)
class Stability:
    """Of one run."""

    num_steps: int
    num_spikes: int
    first_spike: int | None  # step, from 1
    peak: float  # the largest loss over the median of the 101 before it, from step 200 on
    loss_ratio: float  # worst over median of them all, from step 200 on: large where the loss falls for long
    gradient_norm_ratio: float  # likewise

    def as_dict(self) -> dict[str, float | None]:
        """By their names."""
        return dataclasses.asdict(self)


def stability(losses: np.ndarray, gradient_norms: np.ndarray) -> Stability:
    """The figures of a run of which every step was logged; `[N]` each."""
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
    """E[(α − 1)²‖e‖²] / E‖z_e − e‖², from the unweighted loss terms of the latent `projected`.

    The share of the latent error that the projection takes away; 1/D where the error has no direction. By Pythagoras
    a commitment `to_projection` lacks the radial part, which one to the code contains.
    """
    whole = commitment + projection if to_projection else commitment
    return projection / whole if whole else 0.0
