"""Hybrid latents: discrete, continuous, or a mix of both.

Every function is pure and works on any leading shape `[..., D]`, under jit, vmap, grad and pmap. `z_e` is the
encoder's output, `codes` the K codes, and the decoder sees `z_bar`:

    vq          z_bar = z_q                                the codes                (van den Oord et al., 2017)
    projected   z_bar = P(z_e, z_q)                        z_e projected onto the line of its code
    frequency   z_bar = M z_q + (1 - M) z_e                codes where they are frequent, z_e elsewhere
    combined    z_bar = M z_q + (1 - M) P(z_e, z_q)        codes where they are frequent, projections elsewhere

`LATENTS` is that table. To add a latent, add a row: training, the losses, what a prior transmits, sampling and the
plots follow from it.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient
from jax.typing import ArrayLike

from hvq_jax.errors import ArgumentError
from hvq_jax.registry import check_choice, choose
from hvq_jax.sharding import any_sharding

# What the decoder may see at a position: the plain code z_q, the projection P(z_e, z_q), or z_e itself.
CODE, PROJECTION, Z_E = PARTS = "code", "projection", "z_e"

# The names in the tables below, for type checkers; entries that you add to a table work too.
Mode = Literal["vq", "projected", "frequency", "combined"]
Estimator = Literal["straight_through", "rotation", "diveq"]
ProjectionGradient = Literal["both", "both_through_st", "encoder", "straight_through"]


@dataclasses.dataclass(frozen=True)
class Latent:
    """A row of the table: what the decoder sees where the code is frequent, and where it is rare.

    >>> latent = Latent(frequent=PROJECTION, rare=Z_E)
    >>> latent.masked, latent.codes_with(Z_E, jnp.array([True, False])).tolist()
    (True, [False, True])
    """

    frequent: str
    rare: str

    def __post_init__(self) -> None:
        """Check that both parts are known; raise ArgumentError."""
        for name, part in vars(self).items():
            check_choice(name, part, PARTS)

    @property
    def masked(self) -> bool:
        """Whether it matters which codes are frequent."""
        return self.frequent != self.rare

    def uses(self, part: str) -> bool:
        """Return whether the decoder sees `part`, a name in `PARTS`, anywhere; raise ArgumentError for another name."""
        check_choice("part", part, PARTS)
        return part in (self.frequent, self.rare)

    def codes_with(self, part: str, frequent: ArrayLike) -> jax.Array:
        """Return which codes, `[K]` bool, the decoder sees as `part`, given the `frequent` codes `[K]` bool.

        Raises ArgumentError if `part` is not a name in `PARTS`.
        """
        frequent = jnp.asarray(frequent)
        check_choice("part", part, PARTS)
        return jnp.where(frequent, self.frequent == part, self.rare == part)


LATENTS: dict[str, Latent] = {
    "vq": Latent(frequent=CODE, rare=CODE),
    "projected": Latent(frequent=PROJECTION, rare=PROJECTION),
    "frequency": Latent(frequent=CODE, rare=Z_E),
    "combined": Latent(frequent=CODE, rare=PROJECTION),
}


def find_latent(mode: str) -> Latent:
    """Return the row of LATENTS called `mode`; raise ArgumentError for a name that is not in the table.

    >>> find_latent("combined")
    Latent(frequent='code', rare='projection')
    """
    return choose("mode", mode, LATENTS)


# Keeps a zero code's projection at zero; below 1e-18 its square underflows and the gradient is NaN.
EPSILON = 1e-12


@struct.dataclass
class HybridLatent:
    """The result of one pass through a quantizer; the leading shape `...` is that of `z_e` without D."""

    z_bar: jax.Array  # [..., D] float32, what the decoder sees, with its gradient
    z_q: jax.Array  # [..., D] float32, the codes, differentiable in the codebook
    projection: jax.Array  # [..., D] float32, P(z_e, z_q), with the gradient of `projection_gradient`
    indices: jax.Array  # [...] int32
    discrete: jax.Array  # [..., 1] bool, True where the decoder sees the plain code
    projected: jax.Array  # [..., 1] bool, True where the decoder sees the projection
    gain: jax.Array  # [...] float32, alpha of P = alpha z_q; [..., g] where it projects in g > 1 groups
    # [..., d] float32, of a quantizer that commits not z_e but its image under a map: that image, and its code there
    numbers: jax.Array | None = None
    rounded: jax.Array | None = None

    @property
    def gain_seen(self) -> jax.Array:
        """The gain where the decoder sees the projection, 1 elsewhere."""
        in_groups = self.gain.ndim > self.projected.ndim - 1
        return jnp.where(self.projected if in_groups else self.projected[..., 0], self.gain, 1.0)


def unit(vectors: ArrayLike) -> jax.Array:
    """Normalise `vectors` `[..., D]` to length 1; vectors shorter than √ε stay shorter than 1, and zero stays zero.

    >>> unit(jnp.array([0.0, 5.0])).round(5).tolist()
    [0.0, 1.0]
    """
    vectors = jnp.asarray(vectors)
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, EPSILON))


def straight_through(z_e: ArrayLike, value: ArrayLike) -> jax.Array:
    """Return `value` bit for bit, with the gradient of `z_e` in the backward pass (both `[..., D]`).

    >>> z_e, code = jnp.array([0.3]), jnp.array([1.0])
    >>> straight_through(z_e, code).tolist(), jax.grad(lambda z: straight_through(z, code)[0])(z_e).tolist()
    ([1.0], [1.0])
    """
    z_e, value = jnp.asarray(z_e), jnp.asarray(value)
    return stop_gradient(value) + (z_e - stop_gradient(z_e))


def rotation(z_e: ArrayLike, value: ArrayLike) -> jax.Array:
    """Return `value` bit for bit, with a gradient that is rotated along with it (`[..., D]`).

    The rotation trick (Fifty et al., 2024, arXiv:2410.06424) treats `value` as λ R z_e, with λ = |value| / |z_e| and
    R the rotation of z_e's direction onto that of `value`, both constant; so the Jacobian is λ R. Where either vector
    is zero there is no direction, and the gradient is that of `straight_through`.

    >>> z_e, code = jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])
    >>> rotation(z_e, code).tolist(), jax.grad(lambda z: rotation(z, code)[1])(z_e).round(5).tolist()
    ([0.0, 2.0], [2.0, 0.0])
    """
    z_e, value = jnp.asarray(z_e), jnp.asarray(value)
    constant, value = stop_gradient(z_e), stop_gradient(value)
    squares, value_squares = (jnp.sum(jnp.square(x), axis=-1, keepdims=True) for x in (constant, value))
    start, end = unit(constant), unit(value)
    middle = unit(start + end)
    # R z = z − 2 m mᵀz + 2 v uᵀz turns u into v, m the direction between them.
    turned = z_e - 2.0 * middle * _inner(middle, z_e) + 2.0 * end * _inner(start, z_e)
    scale = jnp.sqrt(value_squares / jnp.maximum(squares, EPSILON))
    directed = (squares > EPSILON) & (value_squares > EPSILON)
    return straight_through(jnp.where(directed, scale * turned, z_e), value)


def _inner(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum(x * y, axis=-1, keepdims=True)


def diveq(z_e: jax.Array, value: jax.Array, noise: jax.Array | None = None) -> jax.Array:
    """Return z_e + |value − z_e| v, with the constant direction v of value − z_e + noise (all `[..., D]`).

    DiVeQ (Vali et al., 2025, arXiv:2509.26469). It is differentiated through the length: what the decoder wants along
    v moves the code, and across v the encoder, by the Jacobians v uᵀ and I − v uᵀ, u the direction of value − z_e.
    Without noise the result is `value`, bit for bit.

    >>> z_e, code = jnp.array([1.0, 1.0]), jnp.array([1.0, 3.0])
    >>> gradients = jax.grad(lambda *pair: jnp.sum(diveq(*pair)), argnums=(0, 1))(z_e, code)
    >>> diveq(z_e, code).tolist(), [gradient.tolist() for gradient in gradients]
    ([1.0, 3.0], [[1.0, 0.0], [0.0, 1.0]])
    """
    error = value - z_e
    direction = stop_gradient(unit(error if noise is None else error + noise))
    moved = z_e + jnp.sqrt(jnp.maximum(_inner(error, error), EPSILON)) * direction
    return straight_through(moved, value) if noise is None else moved


# Gradient estimators of plain codes. Each takes (z_e, z_q, noise) and returns the value z_q, or what noise makes of it.
ESTIMATORS: dict[str, Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]] = {
    "straight_through": lambda z_e, z_q, noise: straight_through(z_e, z_q),
    "rotation": lambda z_e, z_q, noise: rotation(z_e, z_q),
    "diveq": diveq,
}
NOISY_ESTIMATORS = ("diveq",)  # those that use the noise


def gain(z_e: ArrayLike, code: ArrayLike) -> jax.Array:
    """Return α = ⟨z_e, e⟩ / max(|e|², ε), `[...]`: the multiple of the code that is nearest to `z_e`.

    >>> gain(jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0])).item()
    1.5
    """
    z_e, code = jnp.asarray(z_e), jnp.asarray(code)
    return jnp.sum(z_e * code, axis=-1) / jnp.maximum(jnp.sum(code * code, axis=-1), EPSILON)


def signed_length(z_e: ArrayLike, code: ArrayLike) -> jax.Array:
    """Return ρ = ⟨z_e, e⟩ / |e|, `[...]`: the gain without the code's arbitrary length, P = ρ e/|e|.

    >>> signed_length(jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0])).item()
    3.0
    """
    z_e, code = jnp.asarray(z_e), jnp.asarray(code)
    norm = jnp.sqrt(jnp.maximum(jnp.sum(code * code, axis=-1), EPSILON))
    return jnp.sum(z_e * code, axis=-1) / norm


def project(z_e: ArrayLike, code: ArrayLike) -> jax.Array:
    """Return P(z_e, e) = α e, `[..., D]`: the orthogonal projection onto the line of `code`, zero for a zero code.

    >>> project(jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0])).tolist()
    [3.0, 0.0]
    """
    z_e, code = jnp.asarray(z_e), jnp.asarray(code)
    return gain(z_e, code)[..., None] * code


# Gradients of the projection (the report does not say which). Each takes (z_e, code) and returns P(z_e, code).
PROJECTION_GRADIENTS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    # Plain differentiation in both arguments.
    "both": project,
    # The projection applied to the straight-through output, as in the reference's code.
    "both_through_st": lambda z_e, code: project(z_e, z_e + stop_gradient(code - z_e)),
    # The code is a constant: reconstruction moves z_e along its code only.
    "encoder": lambda z_e, code: project(z_e, stop_gradient(code)),
    # The decoder's gradient goes to z_e unchanged.
    "straight_through": lambda z_e, code: straight_through(z_e, project(z_e, code)),
}


def frequent_codes(
    frequency: ArrayLike,
    *,
    num_frequent: int | jax.Array | None = None,
    frequent_mass: float | None = None,
) -> jax.Array:
    """Return which codes count as frequent, `[K]` bool.

    >>> frequent_codes(jnp.array([5.0, 1.0, 4.0]), num_frequent=2).tolist()
    [True, False, True]

    Args:
        frequency: F, [K] float32, non-negative. An empty table (ΣF = 0) makes every code frequent.
        num_frequent: S. The S most frequent codes are frequent; ties go to the lowest index.
        frequent_mass: m. Codes in falling order of F are frequent while the sum *before* them is below m ΣF.

    Raises:
        ArgumentError: not exactly one of `num_frequent` and `frequent_mass` is given.
    """
    frequency = jnp.asarray(frequency)
    if (num_frequent is None) == (frequent_mass is None):
        raise ArgumentError("num_frequent", "give exactly one of num_frequent and frequent_mass")
    order = jnp.argsort(-frequency, stable=True)
    if frequent_mass is None:
        chosen = jnp.arange(frequency.shape[0], dtype=jnp.int32) < jnp.asarray(num_frequent)
    else:
        ordered = frequency[order]
        sum_before = jnp.concatenate([jnp.zeros(1, ordered.dtype), jnp.cumsum(ordered)[:-1]])
        sum_from = jnp.cumsum(ordered[::-1])[::-1]  # from the small end: float32 keeps what a few large codes leave
        rest = (1 - frequent_mass) * sum_from[0]
        # The same inequality twice; the smaller of the two shares is the one that rounding moves less.
        chosen = jnp.where(frequent_mass <= 0.5, sum_before < frequent_mass * sum_from[0], sum_from > rest)
    frequent = jnp.zeros(frequency.shape, bool).at[order].set(chosen)
    return frequent | (jnp.sum(frequency) == 0)


def split_channels(vectors: ArrayLike, groups: int) -> jax.Array:
    """Return `[..., D]` as `[..., g, D/g]`, to project each group of channels separately; unchanged for one group.

    >>> split_channels(jnp.arange(6.0), 3).shape
    (3, 2)
    """
    vectors = jnp.asarray(vectors)
    return vectors if groups == 1 else vectors.reshape(*vectors.shape[:-1], groups, -1)


@any_sharding
def hybrid_latent(
    z_e: ArrayLike,
    codes: ArrayLike,
    indices: ArrayLike,
    frequent: ArrayLike | None = None,
    *,
    mode: Mode,
    projection_gradient: ProjectionGradient = "straight_through",
    projection_groups: int = 1,
    estimator: Estimator = "straight_through",
    noise: jax.Array | None = None,
) -> HybridLatent:
    """Return the latent of `mode`.

    One expression serves every row of `LATENTS`, so frequency(S=K) = vq, combined(S=K) = vq and combined(S=0) =
    projected hold bit for bit.

    >>> codes, z_e = jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([[3.0, 4.0], [0.0, 2.0]])
    >>> frequent = jnp.array([False, True])
    >>> hybrid_latent(z_e, codes, jnp.array([0, 1]), frequent, mode="combined").z_bar.tolist()
    [[3.0, 0.0], [0.0, 1.0]]

    Args:
        z_e: [..., D] float, the encoder's output.
        codes: [K, D] float32.
        indices: [...] int32, each vector's code.
        frequent: [K] bool, the frequent codes; needed where `mode` has a mask, and unused where it has none.
        mode: a name in `LATENTS`.
        projection_gradient: a name in `PROJECTION_GRADIENTS`.
        projection_groups: g. Each of g groups of D/g channels has a separate gain; g = D reproduces z_e.
        estimator: a name in `ESTIMATORS`, the gradient of plain codes.
        noise: [..., D] float32, in training, for an estimator that uses it.

    Raises:
        ArgumentError: a name is unknown, or a shape does not fit the others.
    """
    latent = find_latent(mode)
    z_e, codes, indices = jnp.asarray(z_e, jnp.float32), jnp.asarray(codes), jnp.asarray(indices)
    _check_shapes(z_e, codes, indices, projection_groups)
    z_q = codes[indices]
    vectors, code_vectors = split_channels(z_e, projection_groups), split_channels(z_q, projection_groups)
    differentiate = choose("projection_gradient", projection_gradient, PROJECTION_GRADIENTS)
    projection = differentiate(vectors, code_vectors).reshape(z_e.shape)
    seen = {CODE: choose("estimator", estimator, ESTIMATORS)(z_e, z_q, noise), PROJECTION: projection, Z_E: z_e}
    mask = _frequent(frequent, len(codes), mode)[indices][..., None] if latent.masked else None  # M

    def positions_with(part: str) -> jax.Array:
        if mask is None:
            return jnp.full((*indices.shape, 1), latent.uses(part))
        return jnp.where(mask, latent.frequent == part, latent.rare == part)

    z_bar = seen[latent.frequent] if mask is None else jnp.where(mask, seen[latent.frequent], seen[latent.rare])
    return HybridLatent(
        z_bar=z_bar,
        z_q=z_q,
        projection=projection,
        indices=indices,
        discrete=positions_with(CODE),
        projected=positions_with(PROJECTION),
        gain=gain(stop_gradient(vectors), stop_gradient(code_vectors)),
    )


def _check_shapes(z_e: jax.Array, codes: jax.Array, indices: jax.Array, groups: int) -> None:
    """Raise ArgumentError for the first argument whose shape does not fit."""
    if codes.ndim != 2 or z_e.ndim == 0 or codes.shape[-1] != z_e.shape[-1]:
        raise ArgumentError("codes", f"must be [K, D], with the D of z_e {list(z_e.shape)}, not {list(codes.shape)}")
    if indices.shape != z_e.shape[:-1] or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ArgumentError(
            "indices",
            f"must be integers of the shape {list(z_e.shape[:-1])}, that of z_e without its last axis, not "
            f"{indices.dtype} of {list(indices.shape)}",
        )
    if groups < 1 or z_e.shape[-1] % groups:
        raise ArgumentError(f"projection_groups={groups}", f"must divide the {z_e.shape[-1]} channels of z_e")


def _frequent(frequent: ArrayLike | None, num_codes: int, mode: str) -> jax.Array:
    """Return which codes are frequent `[K]`; raise ArgumentError if that is not said, or of other codes."""
    if frequent is None:
        raise ArgumentError("frequent", f"mode={mode} needs [K] bool: which codes are frequent (see frequent_codes)")
    if (shape := jnp.shape(frequent)) != (num_codes,):
        raise ArgumentError("frequent", f"must have the shape [{num_codes}], one value per code, not {list(shape)}")
    return jnp.asarray(frequent)


@any_sharding
def plain_latent(z_e: ArrayLike, z_q: ArrayLike, indices: ArrayLike, z_bar: ArrayLike) -> HybridLatent:
    """Return the latent of a quantizer that does not project: `z_bar` `[..., D]` is z_q with its gradient.

    >>> z_e, z_q = jnp.array([[0.3, 0.4]]), jnp.array([[1.0, 0.0]])
    >>> latent = plain_latent(z_e, z_q, jnp.array([7]), straight_through(z_e, z_q))
    >>> latent.z_bar.tolist(), latent.discrete.tolist(), latent.gain.tolist()
    ([[1.0, 0.0]], [[True]], [1.0])
    """
    z_e, z_q, indices, z_bar = jnp.asarray(z_e), jnp.asarray(z_q), jnp.asarray(indices), jnp.asarray(z_bar)
    everywhere = jnp.ones((*z_e.shape[:-1], 1), bool)
    return HybridLatent(
        z_bar=z_bar,
        z_q=z_q,
        projection=z_q,
        indices=indices,
        discrete=everywhere,
        projected=~everywhere,
        gain=jnp.ones(z_e.shape[:-1], jnp.float32),
    )


@any_sharding
def latent_from_codes(indices: ArrayLike, codes: ArrayLike, gains: ArrayLike | None = None) -> jax.Array:
    """Return the decoder's input `[..., D]` from `indices` `[...]`: the codes, or each times its gain.

    >>> latent_from_codes(jnp.array([1, 0]), jnp.array([[1.0], [2.0]]), jnp.array([3.0, 4.0])).tolist()
    [[6.0], [4.0]]

    Args:
        indices: [...] int32.
        codes: [K, D] float32.
        gains: [...] or, in g groups, [..., g] float32.
    """
    indices, codes = jnp.asarray(indices), jnp.asarray(codes)
    gains = None if gains is None else jnp.asarray(gains)
    return codes[indices] if gains is None else scaled(codes[indices], gains)


def scaled(vectors: ArrayLike, gains: ArrayLike) -> jax.Array:
    """Return `vectors` `[..., D]` times `gains` `[...]` or, one for each of g groups of channels, `[..., g]`.

    >>> scaled(jnp.ones(4), jnp.array([2.0, 3.0])).tolist()
    [2.0, 2.0, 3.0, 3.0]
    """
    vectors, gains = jnp.asarray(vectors), jnp.asarray(gains)
    groups = gains.shape[-1] if gains.ndim == vectors.ndim else 1
    return (gains[..., None] * split_channels(vectors, groups)).reshape(vectors.shape)
