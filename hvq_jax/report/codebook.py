"""The codes of a run: how often each is used, and what it looks like when it is decoded alone."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.report.examples import frequent_codes
from hvq_jax.runs.loaded import LoadedRun

_NEIGHBOURS = 3
_SHOWN_POSITIONS = 3  # of the latent, in each direction


@dataclasses.dataclass(frozen=True)
class CodeUse:
    """How often codes are used; L is 1 for a single codebook."""

    counts: np.ndarray  # [L, K] int, at the positions of the evaluated images
    frequency: np.ndarray | None  # [L, K] float64, the table F as shares of 1; None if there is none
    frequent: np.ndarray | None  # [K] bool, the codes left of the border; None where the latent has no mask

    @property
    def order(self) -> np.ndarray:
        """The codes of each codebook `[L, K]`, the most used first: by F where there is a mask, else by the counts."""
        by = self.frequency if self.frequent is not None and self.frequency is not None else self.counts
        return np.argsort(-by, axis=1, kind="stable")


@dataclasses.dataclass(frozen=True)
class Tile:
    """A code in the atlas."""

    level: int
    code: int
    rank: int  # from 1
    count: int
    neighbours: tuple[int, ...]  # the places in the atlas of the nearest codes of its codebook, nearest first


@dataclasses.dataclass(frozen=True)
class Atlas:
    """The most used codes of each codebook, in the order of their use."""

    tiles: tuple[Tile, ...]
    images: np.ndarray  # [N, H', W', C] uint8, of each tile
    num_codes: int  # of all codebooks

    def of_at_most(self, most: int) -> "Atlas":
        """Return the atlas with at most `most` tiles, equally many of each codebook, and neighbours among them."""
        num_levels = 1 + max((tile.level for tile in self.tiles), default=0)
        kept = [place for place, tile in enumerate(self.tiles) if tile.rank <= max(most // num_levels, 1)]
        places = {place: new for new, place in enumerate(kept)}
        tiles = (
            dataclasses.replace(
                self.tiles[place],
                neighbours=tuple(places[other] for other in self.tiles[place].neighbours if other in places),
            )
            for place in kept
        )
        return Atlas(tuple(tiles), self.images[kept], self.num_codes)


def find_use(run: LoadedRun, indices: np.ndarray) -> CodeUse:
    """Return the use of codes at `indices` `[N, h, w]` or `[N, h, w, L]`, with the run's own table."""
    num_codes, several = run.stream.num_codes, run.stream.model.index_shape
    columns = indices.reshape(-1, several[0] if several else 1).T
    counts = np.stack([np.bincount(column, minlength=num_codes) for column in columns])
    table = np.asarray(run.stream.variables.state.quantizer.frequency, np.float64).reshape(-1, num_codes)
    total = table.sum(axis=1, keepdims=True)
    frequency = table / total if len(table) == len(counts) and (total > 0).all() else None
    return CodeUse(counts, frequency, frequent_codes(run))


def make_atlas(run: LoadedRun, use: CodeUse, most: int) -> Atlas:
    """Return the atlas of at most `most` codes.

    A tile is the middle of an image whose latent has the code at every position: of several codebooks, with nothing
    from the others.
    """
    num_levels, num_codes = use.counts.shape
    shown = use.order[:, : max(most // num_levels, 1)]
    vectors = [_vectors(run, level, codes) for level, codes in enumerate(shown)]
    tiles: list[Tile] = []
    for level, codes in enumerate(shown):
        first = len(tiles)
        nearest = _nearest(vectors[level])
        for place, code in enumerate(codes):
            neighbours = tuple(first + int(other) for other in nearest[place])
            tiles.append(Tile(level, int(code), place + 1, int(use.counts[level, code]), neighbours))
    images = _decoded(run, np.concatenate(vectors))
    return Atlas(tuple(tiles), images, num_levels * num_codes)


def _vectors(run: LoadedRun, level: int, codes: np.ndarray) -> np.ndarray:
    """Return what the decoder sees of codes of one codebook, alone: `[n, D]` float32."""
    model, variables = run.stream.model, run.stream.variables_on_device
    if not model.index_shape:
        return np.asarray(autoencoder.vectors(model, variables, jnp.asarray(codes)))
    own = run.codebook[level][codes]
    vectors = np.zeros((len(codes), model.latent_options.dim), np.float32)
    first = level * own.shape[1] if own.shape[1] < vectors.shape[1] else 0  # of a group of channels
    vectors[:, first : first + own.shape[1]] = own
    return vectors


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """Return the rows of the nearest other vectors of each of `[n, D]`, `[n, at most 3]`."""
    x = vectors.astype(np.float64)
    squares = np.square(x).sum(axis=1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, : min(_NEIGHBOURS, len(x) - 1)]


def _decoded(run: LoadedRun, vectors: np.ndarray) -> np.ndarray:
    """Return the middles of the images whose latents are one vector `[n, D]` everywhere, `[n, H', W', C]` uint8."""
    height, width = run.stream.latent_shape
    latents = (np.broadcast_to(vector, (height, width, len(vector))) for vector in vectors)
    image_height, image_width, _ = run.stream.model.image_shape
    rows, columns = _middle(height, image_height // height), _middle(width, image_width // width)
    return np.concatenate([images[:, rows, columns] for images in run.stream.decode(latents)])


def _middle(positions: int, factor: int) -> slice:
    first = max(positions - _SHOWN_POSITIONS, 0) // 2
    return slice(first * factor, (first + min(positions, _SHOWN_POSITIONS)) * factor)
