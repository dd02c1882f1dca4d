"""Convolutions of stride 1 with fewer multiplications, for CPUs: Winograd's minimal filtering in tiles.

A tile of 4×4 outputs of a 3×3 kernel takes 6×6 products per pair of channels instead of 144, and one of a 2×2 kernel
5×5 instead of 64 (Lavin and Gray, arXiv:1509.09308). The products of all tiles at one of the 36 or 25 places are a
matrix product, which is where the time goes.

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
_POINTS = {2: ("1/2", "-1/2", "1", "-1"), 3: ("0", "3/4", "-3/4", "3/2", "-3/2")}  # by the side of the kernel


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
    """Return whether, on CPU, `correlate` is faster than XLA's convolution of `[B, H, W, I]` with `[r, r, I, O]`.

    It does not depend on the number of images B: one image is computed as a batch of them is. Programs for any B, which
    are exported, keep XLA's convolutions: they could not be divided into parts, and other software knows convolutions.
    """
    if not isinstance(shape[0], int):
        return False
    height, width, inputs, outputs = kernel_shape
    if height != width or height not in _POINTS or dtype != jnp.float32 or min(inputs, outputs) < _FEWEST_CHANNELS:
        return False
    sides = [size - height + 1 for size in shape[1:3]]
    tiles = math.prod(-(-side // _TILE) for side in sides)
    return tiles * (_TILE + height - 1) ** 2 <= _LARGEST_SHARE * math.prod(sides) * height**2


Form = Callable[[jax.Array], jax.Array]  # of images, each by itself


def _as_it_is(images: jax.Array) -> jax.Array:
    return images


def correlate(x: jax.Array, kernel: jax.Array, *, before: Form = _as_it_is, after: Form = _as_it_is) -> jax.Array:
    """Return yᵢⱼ = Σ x[i + s, j + t] kernel[s, t] wherever the kernel fits: `[B, H, W, I]` to `[B, H−r+1, W−r+1, O]`.

    Args:
        x: `[B, H, W, I]` float32.
        kernel: `[r, r, I, O]` float32, r = 2 or 3.
        before: what is done to `x` first, such as padding; in parts of the batch, so that its whole result is never in
            memory. H, W and I are those of its result.
        after: the same, to the result.
    """
    taps, _, inputs, outputs = kernel.shape
    x, kernel = materialised(x, kernel)  # else XLA transforms all kernels of a network first, and keeps them
    height, width = (size - taps + 1 for size in jax.eval_shape(before, x).shape[1:3])
    (kernel_places,) = materialised(_kernel_to_places(kernel))

    def of_part(x: jax.Array) -> jax.Array:
        (places,) = materialised(_to_places(before(x), taps))
        (products,) = materialised(jax.lax.dot_general(places, kernel_places, (((2,), (1,)), ((0,), (0,)))))
        return after(_from_places(products, taps, (len(x), height, width)))

    parts = _in_parts(x, num_numbers=_numbers_at_places((height, width), taps, inputs + outputs))
    if len(parts) == 1:
        return of_part(x)
    results = jax.lax.map(of_part, parts)
    return results.reshape(len(x), *results.shape[2:])


def kernel_gradient(x: jax.Array, g: jax.Array, *, before: Form = _as_it_is) -> jax.Array:
    """Return the gradient of the kernel of `correlate`, Σ x[i + s, j + t] g[i, j]ᵀ: `[r, r, I, O]`.

    Args:
        x: `[B, H, W, I]` float32.
        g: `[B, H−r+1, W−r+1, O]` float32, the gradient of the output.
        before: what is done to `x` first, as by `correlate`.
    """
    x, g = materialised(x, g)
    _, height, _, inputs = jax.eval_shape(before, x).shape
    taps, outputs = height - g.shape[1] + 1, g.shape[-1]
    num_numbers = _numbers_at_places(g.shape[1:3], taps, inputs + outputs)

    def of_part(x: jax.Array, g: jax.Array) -> jax.Array:
        x_places, g_places = materialised(_to_places(before(x), taps), _gradient_to_places(g, taps))
        return jax.lax.dot_general(x_places, g_places, (((1,), (1,)), ((0,), (0,))))  # [n², I, O]

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + of_part(*part), None

    parts = [_in_parts(array, num_numbers=num_numbers) for array in (x, g)]
    first = of_part(parts[0][0], parts[1][0])
    products = first if len(parts[0]) == 1 else jax.lax.scan(add, first, (parts[0][1:], parts[1][1:]))[0]
    matrix = transforms(taps).kernel
    both = np.einsum("ar,bs->rsab", matrix, matrix).reshape(taps * taps, -1)
    gradient = jnp.matmul(both.astype(np.float32), products.reshape(len(products), -1))
    return gradient.reshape(taps, taps, inputs, outputs)


def _numbers_at_places(sides: Sequence[int], taps: int, channels: int) -> int:
    """Return how many numbers stand for one image at the places of its tiles."""
    return math.prod(-(-side // _TILE) for side in sides) * (_TILE + taps - 1) ** 2 * channels


def _in_parts(x: jax.Array, num_numbers: int) -> jax.Array:
    """Divide a batch `[B, …]` into equal parts `[parts, B / parts, …]`, so small that a part stays in the cache.

    A batch that has only far smaller equal parts, as one of a prime number of images, stays in one part.
    """
    batch, *shape = x.shape
    most = max(_LARGEST_PART // num_numbers, 1)
    parts = next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= most)
    if 4 * (batch // parts) < min(most, batch):
        parts = 1
    return x.reshape(parts, batch // parts, *shape)


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the product of `matrix` with `parts`, with one operation per number that is not zero."""
    results = []
    for row in matrix:
        terms = [part if w == 1 else part * np.float32(w) for w, part in zip(row, parts, strict=True) if w]
        results.append(functools.reduce(jnp.add, terms))
    return results


def _to_places(x: jax.Array, taps: int) -> jax.Array:
    """Return what the tiles of `x` are at each place: `[n², B · tiles, I]`."""
    batch, height, width, channels = x.shape
    size = _TILE + taps - 1
    rows, columns = -(-(height - taps + 1) // _TILE), -(-(width - taps + 1) // _TILE)
    x = jnp.pad(x, ((0, 0), (0, rows * _TILE + taps - 1 - height), (0, columns * _TILE + taps - 1 - width), (0, 0)))
    matrix = transforms(taps).image
    lines = [x[:, i : i + _TILE * (rows - 1) + 1 : _TILE] for i in range(size)]
    (x,) = materialised(jnp.stack(_combine(matrix, lines)))  # [n, B, rows, W, I]
    lines = [x[:, :, :, i : i + _TILE * (columns - 1) + 1 : _TILE] for i in range(size)]
    return jnp.stack(_combine(matrix, lines), axis=1).reshape(size * size, batch * rows * columns, channels)


def _kernel_to_places(kernel: jax.Array) -> jax.Array:
    taps, _, *channels = kernel.shape
    matrix = transforms(taps).kernel
    both = np.einsum("ar,bs->abrs", matrix, matrix).reshape(-1, taps * taps)
    return jnp.matmul(both.astype(np.float32), kernel.reshape(taps * taps, -1)).reshape(-1, *channels)


def _from_places(products: jax.Array, taps: int, shape: tuple[int, int, int]) -> jax.Array:
    """Return the outputs `[B, H, W, O]` from what they are at each place, `[n², B · tiles, O]`."""
    batch, height, width = shape
    size = _TILE + taps - 1
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    x = products.reshape(size, size, batch, rows, columns, -1)
    matrix = transforms(taps).output
    (x,) = materialised(jnp.stack(_combine(matrix, list(x)), axis=3))  # [n, B, rows, m, columns, O]
    x = jnp.stack(_combine(matrix, list(x)), axis=4)
    return x.reshape(batch, rows * _TILE, columns * _TILE, -1)[:, :height, :width]


def _gradient_to_places(g: jax.Array, taps: int) -> jax.Array:
    """Apply the transpose of `_from_places`: `[B, H, W, O]` to `[n², B · tiles, O]`."""
    batch, height, width, channels = g.shape
    size = _TILE + taps - 1
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    g = jnp.pad(g, ((0, 0), (0, rows * _TILE - height), (0, columns * _TILE - width), (0, 0)))
    g = g.reshape(batch, rows, _TILE, columns, _TILE, channels)
    matrix = transforms(taps).output.T
    (g,) = materialised(jnp.stack(_combine(matrix, [g[:, :, i] for i in range(_TILE)])))  # [n, B, rows, columns, m, O]
    g = jnp.stack(_combine(matrix, [g[..., i, :] for i in range(_TILE)]), axis=1)
    return g.reshape(size * size, batch * rows * columns, channels)
