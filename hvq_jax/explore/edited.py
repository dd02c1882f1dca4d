"""The latent of one image, of which single positions are changed."""

import dataclasses

import numpy as np

from hvq_jax import autoencoder
from hvq_jax.latents import PROJECTION
from hvq_jax.runs.batching import joined
from hvq_jax.runs.loaded import LoadedRun
from hvq_jax.runs.results import Decoded
from hvq_jax.runs.stored_codes import check_codes

Position = tuple[int, int]  # (row, column) of the latent


@dataclasses.dataclass(frozen=True, eq=False)
class Edited:
    """An image and its latent."""

    indices: np.ndarray  # [h, w] int32, or [h, w, L] where a position has L codes
    gains: np.ndarray  # [h, w] or, in g groups, [h, w, g] float32; 1 where the decoder sees no multiple of a code
    latents: np.ndarray  # [h, w, D] float32, what the decoder sees
    image: np.ndarray  # [H, W, C] uint8


def encoded(run: LoadedRun, image: np.ndarray) -> Edited:
    """Return the latent of `image` `[H, W, C]` uint8, and the image after encoder, latent and decoder."""
    return chosen(run.reconstruct(image), 0)


def chosen(decoded: Decoded, number: int) -> Edited:
    """Return image `number` of `decoded`, counted over the draws of all images where each has several."""
    leading = decoded.images.ndim - 3
    names = ("indices", "gains", "latents", "images")
    flat = (getattr(decoded, name) for name in names)
    indices, gains, latents, image = (x.reshape(-1, *x.shape[leading:])[number] for x in flat)
    return Edited(indices, gains, latents, image)


def codes_with_gain(run: LoadedRun) -> np.ndarray:
    """Return the codes, `[K]` bool, that the decoder sees times a gain."""
    model = run.stream.model
    if not model.row.uses(PROJECTION):
        return np.zeros(run.stream.num_codes, bool)
    frequent = autoencoder.frequent_codes(model, run.stream.variables)
    return np.asarray(model.row.codes_with(PROJECTION, frequent))


def with_code(run: LoadedRun, edited: Edited, position: Position, code: int, *, number: int = 0) -> Edited:
    """Return `edited` with another code at a position.

    Its gain is kept if that code has one, and is 1 otherwise; a residual is dropped.

    Args:
        run: the run that it is a latent of.
        edited: the latent.
        position: (row, column).
        code: from 0 to K - 1.
        number: which of the L codes of the position.
    """
    indices, gains = edited.indices.copy(), edited.gains.copy()
    indices[position if indices.ndim == 2 else (*position, number)] = code
    if indices.ndim == 2 and not codes_with_gain(run)[code]:
        gains[position] = 1
    return _changed(run, edited, position, indices, gains)


def with_gain(run: LoadedRun, edited: Edited, position: Position, gain: float, *, group: int = 0) -> Edited:
    """Return `edited` with another gain at a position, in `group` where there are several groups of channels."""
    gains = edited.gains.copy()
    gains[position if gains.ndim == 2 else (*position, group)] = gain
    return _changed(run, edited, position, edited.indices, gains)


def _changed(run: LoadedRun, edited: Edited, position: Position, indices: np.ndarray, gains: np.ndarray) -> Edited:
    decoded = joined(run.stream.decode_codes(*check_codes(run.stream, indices, gains, None)))
    latents = edited.latents.copy()
    latents[position] = decoded.latents[0][position]  # the others may have residuals
    return Edited(indices, gains, latents, run.decode_latents(latents)[0])
