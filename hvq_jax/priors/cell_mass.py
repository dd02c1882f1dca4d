"""The mass of a normal distribution in a cell: the probability of a number that is rounded to multiples of a step.

Value and gradient keep float32's precision at any distance from the mean and for any width of the cell. A plain
difference of two values of Φ, or of their logarithms, does not: it cancels where the values are nearly equal, and its
gradient in the tails is the exponential of a difference of large numbers.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

_NARROW = 0.3  # bound on the logarithmic change of the density over half a cell, see `_parts`
_TAIL = 4.0  # where the Mills ratio goes over from erfc, which underflows, to the fraction, which converges slowly at 0
_FRACTION_TERMS = 12


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def log_cell_mass(offsets: jax.Array, scales: jax.Array, step: float) -> jax.Array:
    """Return the log of a normal distribution's mass within half a step of a point, finite at any distance.

    >>> cells = 0.5 * jnp.arange(-20.0, 21.0)
    >>> jnp.sum(jnp.exp(log_cell_mass(cells, jnp.array(1.0), 0.5))).round(5).item()
    1.0

    Args:
        offsets: [...] float32, the point minus the mean.
        scales: [...] float32, the standard deviations, positive.
        step: the cell's width.

    Returns:
        [...] float32.
    """
    return _parts(offsets, scales, step)[0]


@log_cell_mass.defjvp
def _log_cell_mass_jvp(
    step: float, primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """With a and b the cell's edges in deviations, the derivatives are -φ(a)/mass by a and φ(b)/mass by b."""
    offsets, scales = primals
    log_mass, ratio = _parts(offsets, scales, step)
    x, h, near, far = _edges(offsets, scales, step)
    change = jnp.expm1(-2 * x * h)  # φ(b)/φ(a) - 1
    # a - b φ(b)/φ(a), in terms that are not nearly equal: in narrow cells a and b are, in wide ones x and h may be.
    difference = jnp.where(_is_narrow(x, h), -x * change - h * (2 + change), near - far * jnp.exp(-2 * x * h))
    by_offset = jnp.sign(offsets) * ratio * change / scales
    return log_mass, by_offset * tangents[0] + ratio * difference / scales * tangents[1]


def _edges(offsets: jax.Array, scales: jax.Array, step: float) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return, in deviations, the distance x from the mean, half the width h, and the edges x - h and x + h."""
    distances = jnp.abs(offsets)  # the mass is the same on either side of the mean
    # Edges from the distances: x - h would round to nothing in a narrow cell far away, and be inexact in a wide one.
    near, far = (distances - step / 2) / scales, (distances + step / 2) / scales
    return distances / scales, step / (2 * scales), near, far


def _is_narrow(x: jax.Array, h: jax.Array) -> jax.Array:
    return h * (1 + x) < _NARROW


def _parts(offsets: jax.Array, scales: jax.Array, step: float) -> tuple[jax.Array, jax.Array]:
    """Return the log of the mass, and φ(a)/mass, with a the edge of the cell that is nearer to the mean.

    Each formula sees harmless values where another is chosen, so that second derivatives are finite too.
    """
    x, h, near, far = _edges(offsets, scales, step)
    narrow = _is_narrow(x, h)
    tail = ~narrow & (near >= 0)

    # Narrow: Gauss-Legendre quadrature with three nodes is exact to float32.
    x_n, h_n = jnp.where(narrow, x, 0.0), jnp.where(narrow, h, _NARROW)
    mean = 4 / 9 + 5 / 9 * jnp.exp(-0.3 * h_n * h_n) * jnp.cosh(math.sqrt(0.6) * x_n * h_n)  # of φ / φ(x)
    by_density = jnp.log(2 * h_n) + norm.logpdf(x_n) + jnp.log(mean)
    ratio_by_density = jnp.exp(x_n * h_n - h_n * h_n / 2) / (2 * h_n * mean)

    # Wide, beside the mean: mass / φ(a) = R(a) - R(b) φ(b)/φ(a), R the Mills ratio.
    near_t, far_t = jnp.where(tail, near, 1.0), jnp.where(tail, far, 2.0)
    rest = jnp.exp(-2 * jnp.where(tail, x * h, 1.0))
    by_density_at_edge = _mills_ratio(near_t) - rest * _mills_ratio(far_t)
    by_tail, ratio_by_tail = norm.logpdf(near_t) + jnp.log(by_density_at_edge), 1 / by_density_at_edge

    # Wide, around the mean: all but what lies beyond the two edges.
    around = ~narrow & (near < 0)
    near_a, far_a = jnp.where(around, near, -1.0), jnp.where(around, far, 1.0)
    by_rest = jnp.log1p(-0.5 * (jax.lax.erfc(-math.sqrt(0.5) * near_a) + jax.lax.erfc(math.sqrt(0.5) * far_a)))
    ratio_by_rest = jnp.exp(norm.logpdf(near_a) - by_rest)

    log_mass = jnp.where(narrow, by_density, jnp.where(tail, by_tail, by_rest))
    return log_mass, jnp.where(narrow, ratio_by_density, jnp.where(tail, ratio_by_tail, ratio_by_rest))


def _mills_ratio(x: jax.Array) -> jax.Array:
    """Return (1 - Φ(x)) / φ(x) for x ≥ 0, in the tail by Laplace's continued fraction 1/(x + 1/(x + 2/(x + ...)))."""
    small, large = jnp.minimum(x, _TAIL), jnp.maximum(x, _TAIL)
    by_erfc = math.sqrt(math.pi / 2) * jnp.exp(small * small / 2) * jax.lax.erfc(math.sqrt(0.5) * small)
    fraction = large
    for n in range(_FRACTION_TERMS, 0, -1):
        fraction = large + n / fraction
    return jnp.where(x < _TAIL, by_erfc, 1 / fraction)
