"""Convolutions of stride 1 with fewer multiplications, for CPUs: Winograd's minimal filtering in tiles.

A tile of 4×4 outputs of a 3×3 kernel takes 6×6 products per pair of channels instead of 144, one of a 2×3 kernel 5×6
instead of 96, and one of a 2×2 kernel 5×5 instead of 64 (Lavin and Gray, arXiv:1509.09308). The products of all tiles
at one of these places are a matrix product, which is where the time goes.

The transformations between tiles and places are those of Cook and Toom: polynomials are evaluated at a few points,
multiplied there, and interpolated. Rounding errors depend on the points (Barabasz et al., arXiv:1803.10986): with those
below, the root mean square error in float32 is three times that of XLA's convolution, and for 3×3 half of that with the
usual 0, ±1, ±2. It is a millionth of the result; TF32, which JAX uses on GPUs by default, rounds factors at 5e-4.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax.fusion import materialised

_FEWEST_CHANNELS = 32  # with fewer, the transformations take longer than they save
_LARGEST_SHARE = 0.6  # of the multiplications of the plain sum; at image borders some products are of no use
_LARGEST_PART = 2**22  # numbers at the places of the tiles, 16 MiB
_TILE = 4  # outputs per side of a tile
_POINTS = {2: ("1/2", "-1/2", "1", "-1"), 3: ("0", "3/4", "-3/4", "3/2", "-3/2")}  # by the taps in a row


@dataclasses.dataclass(frozen=True, eq=False)
class Transforms:
    """The matrices of y = output [(kernel k) ⊙ (image x)], for r taps, m outputs and n = m + r − 1 inputs in a row."""

    image: np.ndarray  # [n, n]
    kernel: np.ndarray  # [n, r]
    output: np.ndarray  # [m, n]


@functools.cache
def transforms(taps: int) -> Transforms:
    """Return the matrices for a kernel of `taps` taps, 2 or 3, computed exactly and rounded to float64 once.

    >>> found = transforms(3)
    >>> x, k = np.arange(6.0), np.array([1.0, -2.0, 3.0])
    >>> bool(np.allclose(found.output @ ((found.kernel @ k) * (found.image @ x)), np.correlate(x, k)))
    True
    """
    points = [Fraction(point) for point in _POINTS[taps]]
    others = [[other for other in points if other != point] for point in points]
    rows = [*([*_polynomial(roots), Fraction(0)] for roots in others), _polynomial(points)]
    scales = [*(math.prod(p - other for other in roots) for p, roots in zip(points, others, strict=True)), 1]
    image = np.array(rows, np.float64)
    kernel = _powers(points, taps) / np.array(scales, np.float64)[:, None]
    return Transforms(image, kernel, _powers(points, _TILE).T)


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of Π (x − root), from the constant one upwards."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def _powers(points: Sequence[Fraction], count: int) -> np.ndarray:
    """Return the powers 0 … count − 1 of each point, and of infinity only the last one: `[n, count]`."""
    return np.array([*([float(p**j) for j in range(count)] for p in points), [0.0] * (count - 1) + [1.0]])


def is_worthwhile(shape: Sequence[Any], kernel_shape: Sequence[int], dtype: Any) -> bool:
    """Return whether, on CPU, `correlate` is faster than XLA's convolution of `[B, H, W, I]` with `[r, s, I, O]`.

    It does not depend on the number of images B: one image is computed as a batch of them is. Programs for any B, which
    are exported, keep XLA's convolutions: they could not be divided into parts, and other software knows convolutions.
    """
    if not isinstance(shape[0], int):
        return False
    *taps, inputs, outputs = kernel_shape
    if not {*taps} <= _POINTS.keys() or dtype != jnp.float32 or min(inputs, outputs) < _FEWEST_CHANNELS:
        return False
    sides = _fitting(shape[1:3], taps)
    return _num_places(sides, taps) <= _LARGEST_SHARE * math.prod((*sides, *taps))


PerImage = Callable[[jax.Array], jax.Array]  # a function of a batch `[B, …]` that maps each image by itself


def _as_it_is(images: jax.Array) -> jax.Array:
    return images


def correlate(
    x: jax.Array, kernel: jax.Array, *, before: PerImage = _as_it_is, after: PerImage = _as_it_is
) -> jax.Array:
    """Return yᵢⱼ = Σ x[i + k, j + l] kernel[k, l] wherever the kernel fits: `[B, H, W, I]` to `[B, H−r+1, W−s+1, O]`.

    Args:
        x: `[B, H, W, I]` float32.
        kernel: `[r, s, I, O]` float32, r and s 2 or 3.
        before: what is done to `x` first, such as padding; in parts of the batch, so that its whole result is never in
            memory. H, W and I are those of its result.
        after: the same, to the result.
    """
    *taps, inputs, outputs = kernel.shape
    x, kernel = materialised(x, kernel)  # else XLA transforms all kernels of a network first, and keeps them
    sides = _fitting(jax.eval_shape(before, x).shape[1:3], taps)
    kernel_places = jnp.matmul(_kernel_matrix(taps), kernel.reshape(math.prod(taps), -1))
    (kernel_places,) = materialised(kernel_places.reshape(-1, inputs, outputs))

    def of_part(x: jax.Array) -> jax.Array:
        (places,) = materialised(_to_places(before(x), taps))
        (products,) = materialised(jax.lax.dot_general(places, kernel_places, (((2,), (1,)), ((0,), (0,)))))
        return after(_from_places(products, taps, sides))

    parts = _in_parts(x, num_numbers=_num_places(sides, taps) * (inputs + outputs))
    if len(parts) == 1:
        return of_part(x)
    results = jax.lax.map(of_part, parts)
    return results.reshape(len(x), *results.shape[2:])


def kernel_gradient(x: jax.Array, g: jax.Array, *, before: PerImage = _as_it_is) -> jax.Array:
    """Return the gradient of the kernel of `correlate`, Σ x[i + k, j + l] g[i, j]ᵀ: `[r, s, I, O]`.

    Args:
        x: `[B, H, W, I]` float32.
        g: `[B, H−r+1, W−s+1, O]` float32, the gradient of the output.
        before: what is done to `x` first, as by `correlate`.
    """
    x, g = materialised(x, g)
    *shape, inputs = jax.eval_shape(before, x).shape[1:]
    *sides, outputs = g.shape[1:]
    taps = _fitting(shape, sides)

    def of_part(x: jax.Array, g: jax.Array) -> jax.Array:
        x_places, g_places = materialised(_to_places(before(x), taps), _gradient_to_places(g, taps))
        return jax.lax.dot_general(x_places, g_places, (((1,), (1,)), ((0,), (0,))))  # [places, I, O]

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + of_part(*part), None

    num_numbers = _num_places(sides, taps) * (inputs + outputs)
    parts = [_in_parts(array, num_numbers=num_numbers) for array in (x, g)]
    first = of_part(parts[0][0], parts[1][0])
    products = first if len(parts[0]) == 1 else jax.lax.scan(add, first, (parts[0][1:], parts[1][1:]))[0]
    gradient = jnp.matmul(_kernel_matrix(taps).T, products.reshape(len(products), -1))
    return gradient.reshape(*taps, inputs, outputs)


def _fitting(sides: Sequence[int], taps: Sequence[int]) -> tuple[int, ...]:
    """Return in how many rows and columns of an image `taps` fit."""
    return tuple(side - count + 1 for side, count in zip(sides, taps, strict=True))


def _tiles(sides: Sequence[int]) -> tuple[int, ...]:
    """Return the rows and columns of tiles that cover the outputs."""
    return tuple(-(-side // _TILE) for side in sides)


def _num_places(sides: Sequence[int], taps: Sequence[int]) -> int:
    """Return how many places the tiles of one image have, and so its products per pair of channels."""
    return math.prod(_tiles(sides)) * math.prod(_TILE + count - 1 for count in taps)


def _in_parts(x: jax.Array, num_numbers: int) -> jax.Array:
    """Divide a batch `[B, …]` into equal parts `[parts, B / parts, …]`, so small that a part stays in the cache.

    A batch that has only far smaller equal parts, as one of a prime number of images, stays in one part.

    Args:
        x: `[B, …]`.
        num_numbers: how many numbers stand for one image at the places of its tiles.
    """
    batch, *shape = x.shape
    most = max(_LARGEST_PART // num_numbers, 1)
    parts = next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= most)
    if 4 * (batch // parts) < min(most, batch):
        parts = 1
    return x.reshape(parts, batch // parts, *shape)


def _kernel_matrix(taps: Sequence[int]) -> np.ndarray:
    """Return the matrix that takes a kernel's taps to the places of a tile, `[places, r · s]`."""
    return np.kron(*(transforms(count).kernel for count in taps)).astype(np.float32)


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the product of `matrix` with `parts`, with one operation per number that is not zero."""
    results = []
    for row in matrix:
        terms = [part if w == 1 else part * np.float32(w) for w, part in zip(row, parts, strict=True) if w]
        results.append(functools.reduce(jnp.add, terms))
    return results


def _to_places(x: jax.Array, taps: Sequence[int]) -> jax.Array:
    """Return what the tiles of `x` are at each place: `[places, B · tiles, I]`."""
    batch, *shape, channels = x.shape
    rows, columns = _tiles(_fitting(shape, taps))
    missing = [tiles * _TILE + r - 1 - side for tiles, r, side in zip((rows, columns), taps, shape, strict=True)]
    x = jnp.pad(x, ((0, 0), *((0, count) for count in missing), (0, 0)))
    by_rows, by_columns = (transforms(count).image for count in taps)
    lines = [x[:, i : i + _TILE * (rows - 1) + 1 : _TILE] for i in range(len(by_rows))]
    (x,) = materialised(jnp.stack(_combine(by_rows, lines)))  # [m, B, rows, W, I]
    lines = [x[:, :, :, i : i + _TILE * (columns - 1) + 1 : _TILE] for i in range(len(by_columns))]
    return jnp.stack(_combine(by_columns, lines), axis=1).reshape(-1, batch * rows * columns, channels)


def _from_places(products: jax.Array, taps: Sequence[int], sides: Sequence[int]) -> jax.Array:
    """Return the outputs `[B, H, W, O]`, of H, W = `sides`, from `[places, B · tiles, O]`."""
    height, width = sides
    rows, columns = _tiles(sides)
    by_rows, by_columns = (transforms(count).output for count in taps)
    x = products.reshape(by_rows.shape[1], by_columns.shape[1], -1, rows, columns, products.shape[-1])
    (x,) = materialised(jnp.stack(_combine(by_rows, list(x)), axis=3))  # [n, B, rows, 4, columns, O]
    x = jnp.stack(_combine(by_columns, list(x)), axis=4)
    return x.reshape(len(x), rows * _TILE, columns * _TILE, -1)[:, :height, :width]


def _gradient_to_places(g: jax.Array, taps: Sequence[int]) -> jax.Array:
    """Apply the transpose of `_from_places`: `[B, H, W, O]` to `[places, B · tiles, O]`."""
    batch, height, width, channels = g.shape
    rows, columns = _tiles((height, width))
    g = jnp.pad(g, ((0, 0), (0, rows * _TILE - height), (0, columns * _TILE - width), (0, 0)))
    g = g.reshape(batch, rows, _TILE, columns, _TILE, channels)
    by_rows, by_columns = (transforms(count).output.T for count in taps)
    (g,) = materialised(jnp.stack(_combine(by_rows, [g[:, :, i] for i in range(_TILE)])))  # [m, B, rows, columns, 4, O]
    g = jnp.stack(_combine(by_columns, [g[..., i, :] for i in range(_TILE)]), axis=1)
    return g.reshape(-1, batch * rows * columns, channels)
