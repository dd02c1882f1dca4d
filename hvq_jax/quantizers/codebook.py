"""The codebook's state besides its codes: code frequencies, moving averages, revival. Pure: (state, batch) -> state.

Every function that counts or sums over a batch takes `axis_name`: it then reduces over the devices of that axis, so
that each device gets the result for the whole batch and replicas stay equal. None means one device.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

# The weight of a code's first position, as an average of assignments: a new code follows the vectors that it gets.
_FIRST_COUNT = 0.08


@struct.dataclass
class MovingAverages:
    """A codebook learned by exponential moving averages (van den Oord et al., 2017, appendix A.1).

    Counts and sums are in units of N/K, the mean count of N vectors and K codes: whether a count is small then depends
    neither on the batch nor on the size of the codebook.
    """

    codes: jax.Array  # [K, D] float32
    counts: jax.Array  # [K] float32, moving average of the assignments per step, in units of their mean
    sums: jax.Array  # [K, D] float32, moving average of the sum of assigned vectors per step, in the same units


def uniform_codes(key: jax.Array, num_codes: int, dim: int) -> jax.Array:
    """Return `[K, D]` float32 from U(−1/K, 1/K), the reference's initialisation.

    >>> codes = uniform_codes(jax.random.key(0), num_codes=4, dim=2)
    >>> codes.shape, bool((abs(codes) < 1 / 4).all())
    ((4, 2), True)
    """
    return jax.random.uniform(key, (num_codes, dim), jnp.float32, minval=-1 / num_codes, maxval=1 / num_codes)


def unassigned(codes: jax.Array) -> MovingAverages:
    """Return averages that have seen nothing: every count is below any threshold, so `revive` replaces all codes.

    >>> unassigned(jnp.ones((2, 3))).counts.tolist()
    [-1.0, -1.0]
    """
    return MovingAverages(codes=codes, counts=jnp.full(codes.shape[0], -1.0, jnp.float32), sums=jnp.zeros_like(codes))


def first_count(revive_below: float) -> float:
    """Return the count of a code that was given its position: none is below the threshold at once.

    >>> first_count(0.0), first_count(0.2)
    (0.08, 0.2)
    """
    return max(revive_below, _FIRST_COUNT)


def assigned(codes: jax.Array, count: float) -> MovingAverages:
    """Return averages that keep the given codes, each as if its assignments were `count` times the mean.

    >>> averages = assigned(jnp.array([[1.0, 2.0]]), 3.0)
    >>> averages.counts.tolist(), averages.sums.tolist()
    ([3.0], [[3.0, 6.0]])
    """
    return MovingAverages(codes=codes, counts=jnp.full(codes.shape[0], count, jnp.float32), sums=count * codes)


def count_assignments(indices: jax.Array, num_codes: int, axis_name: str | None = None) -> jax.Array:
    """Return how often each code is assigned in the batch, `[K]` int32, from `indices` of any shape.

    An index K, as `unassigned_where` gives it, counts for no code.

    >>> count_assignments(jnp.array([[0, 2], [2, 4]]), num_codes=4).tolist()
    [1, 0, 2, 0]
    """
    counts = jnp.zeros(num_codes, jnp.int32).at[indices.reshape(-1)].add(1)
    return jax.lax.psum(counts, axis_name) if axis_name else counts


def unassigned_where(padded: jax.Array, indices: jax.Array, num_codes: int) -> jax.Array:
    """Return `indices` `[...]` with K, which is no code, where `padded` `[...]`: such positions count for no code.

    >>> unassigned_where(jnp.array([False, True]), jnp.array([1, 1]), num_codes=4).tolist()
    [1, 4]
    """
    return jnp.where(padded, num_codes, indices)


def update_frequency(frequency: jax.Array, counts: jax.Array, decay: float) -> jax.Array:
    """Return the leaky sum F ← decay F + n, `[K]` float32; decay 1 is cumulative, decay 0 counts this batch only.

    >>> update_frequency(jnp.array([4.0, 2.0]), jnp.array([1, 0]), decay=0.5).tolist()
    [3.0, 1.0]
    """
    return decay * frequency + counts


def draw_vectors(
    z_e: jax.Array, num_vectors: int, key: jax.Array, axis_name: str | None = None, mask: jax.Array | None = None
) -> jax.Array:
    """Draw `num_vectors` random rows `[num_vectors, D]` of `z_e` `[..., D]`, distinct where there are enough of them.

    `key` must be equal on every device. Each device contributes the rows it holds and a sum carries them everywhere, so
    the draw is the same for the same global batch on any number of devices. Only rows are drawn where `mask` `[...]` is
    True; if it is nowhere, the result is without meaning.

    >>> draw_vectors(jnp.array([[1.0], [2.0], [3.0]]), 3, jax.random.key(0)).sort(axis=0).tolist()
    [[1.0], [2.0], [3.0]]
    """
    rows = jnp.asarray(z_e).reshape(-1, z_e.shape[-1])
    num_local = rows.shape[0]
    num_devices = jax.lax.axis_size(axis_name) if axis_name else 1
    num_rows = num_local * num_devices
    if mask is None:
        chosen = jax.random.choice(key, num_rows, (num_vectors,), replace=num_rows < num_vectors)
    else:
        chosen = _draw_rows(mask.reshape(-1), num_vectors, key, axis_name)
    if not axis_name:
        return rows[chosen]
    local = chosen - num_local * jax.lax.axis_index(axis_name)
    owned = (local >= 0) & (local < num_local)
    mine = jnp.where(owned[:, None], rows[jnp.clip(local, 0, num_local - 1)], 0.0)
    return jax.lax.psum(mine, axis_name)


def _draw_rows(mask: jax.Array, num_rows: int, key: jax.Array, axis_name: str | None) -> jax.Array:
    """Draw `num_rows` random positions `[num_rows]` int32 of the global `mask` that are True; in turn if too few."""
    if axis_name:
        mask = jax.lax.all_gather(mask, axis_name, tiled=True)
    order = jnp.argsort(jnp.where(mask, jax.random.uniform(key, mask.shape), 2.0))
    return order[jnp.arange(num_rows, dtype=jnp.int32) % jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1)]


def draw_noise(key: jax.Array, shape: tuple[int, ...], axis_name: str | None = None) -> jax.Array:
    """Return standard normal noise of `shape` `[..., D]`, drawn for each row by its place in the global batch.

    `key` must be equal on every device; the noise of a row then is the same on any number of devices.

    >>> noise = draw_noise(jax.random.key(0), (2, 3))
    >>> bool((draw_noise(jax.random.key(0), (5, 3))[:2] == noise).all())
    True
    """
    num_rows = math.prod(shape[:-1])
    first = num_rows * jax.lax.axis_index(axis_name) if axis_name else 0
    keys = jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(num_rows, dtype=jnp.int32))
    return jax.vmap(lambda row_key: jax.random.normal(row_key, shape[-1:], jnp.float32))(keys).reshape(shape)


def revive(
    averages: MovingAverages,
    frequency: jax.Array,
    z_e: jax.Array,
    key: jax.Array,
    *,
    below: float,
    axis_name: str | None = None,
    mask: jax.Array | None = None,
) -> tuple[MovingAverages, jax.Array, jax.Array]:
    """Move every code whose count is below `below` onto a random encoder output (Dhariwal et al., 2020).

    The threshold has to be relative to the mean, as counts are: below an absolute one are most codes of a large
    codebook, and codes that are redrawn from the very batch at every step fit that batch and no other.

    A revived code starts over: its counts, sums and frequency F are reset. Call this before the assignment: in the
    first step, where all codes are dead, it is the initialisation from data. Codes move onto outputs only where `mask`
    `[...]` is True, and none moves if it is True nowhere.

    >>> before = MovingAverages(codes=jnp.zeros((2, 1)), counts=jnp.array([0.05, 1.95]), sums=jnp.zeros((2, 1)))
    >>> after, frequency, revived = revive(before, jnp.ones(2), jnp.full((3, 1), 7.0), jax.random.key(0), below=0.1)
    >>> after.codes.tolist(), frequency.tolist(), revived.tolist()
    ([[7.0], [0.0]], [0.0, 1.0], [True, False])

    Returns:
        The averages, F [K] and which codes were revived, [K] bool.
    """
    dead = averages.counts < below
    if mask is not None:
        dead &= anywhere(mask, axis_name)
    drawn = draw_vectors(z_e, averages.codes.shape[0], key, axis_name, mask)
    count = first_count(below)
    revived = MovingAverages(
        codes=jnp.where(dead[:, None], drawn, averages.codes),
        counts=jnp.where(dead, count, averages.counts),
        sums=jnp.where(dead[:, None], count * drawn, averages.sums),
    )
    return revived, jnp.where(dead, 0.0, frequency), dead


def anywhere(mask: jax.Array, axis_name: str | None = None) -> jax.Array:
    """Return whether `mask` is True anywhere, on any device of the axis `axis_name`: a bool.

    >>> anywhere(jnp.array([False, True])).item()
    True
    """
    found = jnp.any(mask)
    return jax.lax.pmax(found.astype(jnp.int32), axis_name) > 0 if axis_name else found


def facing(z_e: jax.Array, codes: jax.Array) -> jax.Array:
    """Return `z_e` `[..., D]`, negated where it points away from its code `[..., D]`.

    A code that is chosen for its line, regardless of the sign of the gain, is learned from these vectors; the originals
    on opposite sides would cancel in the mean.

    >>> facing(jnp.array([[1.0, 2.0], [-1.0, 2.0]]), jnp.array([1.0, 0.0])).tolist()
    [[1.0, 2.0], [1.0, -2.0]]
    """
    return jnp.where(jnp.sum(z_e * codes, axis=-1, keepdims=True) < 0, -z_e, z_e)


def _per_assignment(counts: jax.Array) -> jax.Array:
    """Return K/N of `counts` `[K]` int32, the unit of averages."""
    return jnp.float32(counts.shape[0]) / jnp.sum(counts, dtype=jnp.int32)


def average_counts(averages: jax.Array, counts: jax.Array, decay: float) -> jax.Array:
    """Return n ← γ n + (1 − γ) K/N counts, `[K]` float32, of averages n `[K]` and `counts` `[K]` int32.

    >>> average_counts(jnp.array([1.0, 1.0]), jnp.array([3, 1]), decay=0.5).tolist()
    [1.25, 0.75]
    """
    return decay * averages + (1 - decay) * _per_assignment(counts) * counts


def update_averages(
    averages: MovingAverages,
    z_e: jax.Array,
    indices: jax.Array,
    counts: jax.Array,
    *,
    decay: float,
    smoothing: float = 1e-5,
    axis_name: str | None = None,
) -> MovingAverages:
    """Take one step of the moving averages: e = m / n with n ← γ n + (1 − γ) K/N counts, and m the same with sums.

    >>> z_e, indices, counts = jnp.array([[2.0], [4.0]]), jnp.array([0, 0]), jnp.array([2])
    >>> update_averages(assigned(jnp.array([[1.0]]), 1.0), z_e, indices, counts, decay=0.5).codes.tolist()
    [[2.0]]

    Args:
        averages: the averages before the batch.
        z_e: [..., D] float32.
        indices: [...] int32, their codes; K, which is no code, where a vector does not count.
        counts: [K] int32 over the whole batch, from `count_assignments`.
        decay: γ.
        smoothing: Laplace smoothing of the counts, in assignments.
        axis_name: the axis of devices, or None.
    """
    num_codes, dim = averages.codes.shape
    sums = jnp.zeros((num_codes, dim), jnp.float32).at[indices.reshape(-1)].add(z_e.reshape(-1, dim))
    if axis_name:
        sums = jax.lax.psum(sums, axis_name)
    per_assignment = _per_assignment(counts)
    new_counts = average_counts(averages.counts, counts, decay)
    new_sums = decay * averages.sums + (1 - decay) * per_assignment * sums
    total, added = jnp.sum(new_counts), smoothing * per_assignment
    smoothed = (new_counts + added) / (total + num_codes * added) * total
    return MovingAverages(codes=new_sums / smoothed[:, None], counts=new_counts, sums=new_sums)
