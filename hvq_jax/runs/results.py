"""The results of a trained run: numpy arrays by name."""

import dataclasses

import numpy as np


class _Arrays:
    """A dataclass of arrays that is shown by their dtypes and shapes."""

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value is not None}
        shown = (f"{name}={value.dtype}{list(value.shape)}" for name, value in given.items())
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Encoded(_Arrays):
    """The latents of N images.

    >>> Encoded(np.zeros((2, 7, 7), np.int32), np.ones((2, 7, 7), np.float32), np.zeros((2, 7, 7, 8), np.float32))
    Encoded(indices=int32[2, 7, 7], gains=float32[2, 7, 7], latents=float32[2, 7, 7, 8])
    """

    indices: np.ndarray  # [N, h, w] int32, or [N, h, w, L] where a position has L codes
    gains: np.ndarray  # [N, h, w] or, in g groups, [N, h, w, g] float32; 1 where the decoder sees no multiple of a code
    latents: np.ndarray  # [N, h, w, D] float32, what the decoder sees
    residuals: np.ndarray | None = None  # [N, h, w, D] float32, z_e - e where the decoder sees z_e, else 0; if it may


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Decoded(_Arrays):
    """Images with the latents they were decoded from.

    `...` is N or, where each of N images has S draws and they are not in pieces, N and S.
    """

    indices: np.ndarray  # [..., h, w] int32, or [..., h, w, L]
    images: np.ndarray  # [..., H, W, C] uint8
    gains: np.ndarray  # [..., h, w] or [..., h, w, g] float32; 1 where the decoder did not see a multiple of the code
    latents: np.ndarray  # [..., h, w, D] float32, what the decoder saw
    # [...] float32, the effective number of proposals that each was chosen from, if it was: see `priors/importance.py`.
    effective_proposals: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DecodedLatents(_Arrays):
    """Images with what they were decoded from, where that is of no known codes."""

    images: np.ndarray  # [N, H, W, C] uint8
    latents: np.ndarray  # [N, h, w, D] float32


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Latents(_Arrays):
    """Latents drawn from a prior alone, before any decoder; a part that they do not have is None."""

    indices: np.ndarray  # [N, h, w] int32, or [N, h, w, L]
    lengths: np.ndarray | None = None  # [N, h, w, g] float32, signed
    residuals: np.ndarray | None = None  # [N, h, w, D] float32


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LogLikelihood(_Arrays):
    """The log-probabilities of the latents of N images, in nats; that of a latent is the sum over its positions.

    They are of what is transmitted: a gain's bin, or the cell of a residual. So codes and continuous parts may be added
    up, and divided by -log 2 they are bits.

    >>> found = LogLikelihood(codes=np.full((1, 2, 2), -1.0), continuous=np.full((1, 2, 2), -0.5))
    >>> found.per_position.tolist(), found.per_image.tolist()
    ([[[-1.5, -1.5], [-1.5, -1.5]]], [-6.0])
    """

    codes: np.ndarray  # [N, h, w] float32, of each code given the positions before it and the label
    continuous: np.ndarray  # [N, h, w] float32, of each continuous part given its code, too; 0 where there is none

    @property
    def per_position(self) -> np.ndarray:
        """The sum of both parts, [N, h, w]."""
        return self.codes + self.continuous

    @property
    def per_image(self) -> np.ndarray:
        """The log-probability of each latent, [N]."""
        return self.per_position.sum(axis=(1, 2))
