"""The codes of a run: how often each is used, and what it looks like when it is decoded alone."""

import dataclasses

import numpy as np

from hvq_jax.report.code_pictures import code_vectors, decode_alone
from hvq_jax.report.examples import frequent_codes
from hvq_jax.runs.batching import stacks
from hvq_jax.runs.loaded import LoadedRun

_NEIGHBOURS = 3
_MOST_DISTANCES = 2**23  # computed at a time
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
    neighbours: tuple[int, ...]  # the nearest codes of its codebook, shown or not, nearest first


@dataclasses.dataclass(frozen=True)
class Atlas:
    """The most used codes of each codebook, in the order of their use."""

    tiles: tuple[Tile, ...]
    images: np.ndarray  # [N, H', W', C] uint8, of each tile
    num_codes: int  # of all codebooks

    def of_at_most(self, most: int) -> "Atlas":
        """Return the atlas with at most `most` tiles, equally many of each codebook."""
        num_levels = 1 + max((tile.level for tile in self.tiles), default=0)
        kept = [place for place, tile in enumerate(self.tiles) if tile.rank <= max(most // num_levels, 1)]
        return Atlas(tuple(self.tiles[place] for place in kept), self.images[kept], self.num_codes)


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
    """Return the atlas of at most `most` codes; a tile is decoded from its code alone."""
    num_levels, num_codes = use.counts.shape
    shown = use.order[:, : max(most // num_levels, 1)]
    vectors = code_vectors(run)
    tiles = [
        Tile(level, int(code), rank, int(use.counts[level, code]), tuple(near.tolist()))
        for level, codes in enumerate(shown)
        for rank, (code, near) in enumerate(zip(codes, _nearest(vectors[level], codes), strict=True), start=1)
    ]
    alone = np.concatenate([each[codes] for each, codes in zip(vectors, shown, strict=True)])
    return Atlas(tuple(tiles), decode_alone(run, alone, _SHOWN_POSITIONS), num_levels * num_codes)


def _nearest(vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the numbers of the nearest of all other codes, of vectors `[K, D]`, to `codes` `[n]`: `[n, at most 3]`."""
    x = vectors.astype(np.float64)
    squares, most = np.square(x).sum(axis=1), min(_NEIGHBOURS, len(x) - 1)
    found = []
    for some in stacks(codes, max(_MOST_DISTANCES // len(x), 1)):
        distances = squares - 2 * x[some] @ x.T
        distances[np.arange(len(some)), some] = np.inf
        found.append(np.argpartition(distances, range(most), axis=1)[:, :most])
    return np.concatenate(found)
