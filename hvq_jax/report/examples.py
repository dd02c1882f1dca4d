"""Test images as a run sees them: reconstructions, and what stands at each position of their latents."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.runs import programs
from hvq_jax.runs.loaded import LoadedRun
from hvq_jax.runs.results import Encoded


@dataclasses.dataclass(frozen=True)
class Examples:
    """N test images, and what a run makes of them."""

    originals: np.ndarray  # [N, H, W, C] uint8
    reconstructions: np.ndarray  # [N, H, W, C] uint8
    encoded: Encoded
    psnr: np.ndarray  # [N] dB
    frequent: np.ndarray | None  # [N, h, w] bool, whether the code there is frequent; None where there is no mask
    bits: np.ndarray | None  # [N, h, w], by the prior; None without one
    labels: np.ndarray  # [N] int32
    colors: np.ndarray  # [N, h, w, 3] uint8, of the codes: near codes have near colours


def find_examples(run: LoadedRun, images: np.ndarray, labels: np.ndarray) -> Examples:
    """Return what `run` makes of test images `[N, H, W, C]` uint8 of classes `[N]` int32."""
    encoded = run.encode(images)
    reconstructions = run.reconstruct(images).images
    compared = run.stream.compiled(programs.compare)(images, reconstructions)
    bits = None
    if run.stream.has_prior:
        told = labels if run.stream.prior.num_classes else None
        bits = run.log_likelihood(images, told).per_position / -math.log(2)
    frequent = frequent_codes(run)
    at_positions = None if frequent is None else frequent[encoded.indices]
    return Examples(
        originals=images,
        reconstructions=reconstructions,
        encoded=encoded,
        psnr=np.asarray(compared["psnr"]),
        frequent=at_positions,
        bits=bits,
        labels=labels,
        colors=position_colors(run, encoded.indices),
    )


def frequent_codes(run: LoadedRun) -> np.ndarray | None:
    """Return which codes are frequent, `[K]` bool; None where the run's latent makes no difference between them."""
    if not run.stream.model.row.masked:
        return None
    return np.asarray(autoencoder.frequent_codes(run.stream.model, run.stream.variables))


def position_colors(run: LoadedRun, indices: np.ndarray) -> np.ndarray:
    """Return a colour for each position of `indices` `[N, h, w]` or `[N, h, w, L]`: near codes have near colours.

    The colours `[N, h, w, 3]` uint8 are the three principal components of the codes' vectors.
    """
    vectors = np.asarray(autoencoder.vectors(run.stream.model, run.stream.variables_on_device, jnp.asarray(indices)))
    rows = vectors.reshape(-1, vectors.shape[-1])
    centred = rows - rows.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:3]
    found = np.zeros((len(rows), 3))
    found[:, : len(components)] = centred @ components.T
    shares = 0.5 + 0.45 * found / np.abs(found).max(axis=0, initial=1e-6)
    return (255 * shares).round().astype(np.uint8).reshape(*vectors.shape[:-1], 3)
