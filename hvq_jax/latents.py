"""The idea of the project on one screen: latents that are discrete, continuous, or a mix of both.

Every function is pure and works on any leading shape `[..., D]`, under jit, vmap, grad and pmap. `z_e` is the
encoder's output, `codebook` the K codes, and the decoder sees `z_bar`:

    vq          z_bar = z_q                                the codes                (van den Oord et al., 2017)
    projected   z_bar = P(z_e, z_q)                        z_e projected onto the line of its code
    frequency   z_bar = M z_q + (1 - M) z_e                codes where they are frequent, z_e elsewhere
    combined    z_bar = M z_q + (1 - M) P(z_e, z_q)        codes where they are frequent, projections elsewhere
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient

MODES = ("vq", "projected", "frequency", "combined")

# Keeps a zero code's projection at zero; below 1e-18 its square underflows and the gradient is NaN.
EPSILON = 1e-12


@struct.dataclass
class HybridLatent:
    """What one pass through the bottleneck gives; leading shape `...` is that of `z_e` without D."""

    z_bar: jax.Array  # [..., D] float32, what the decoder sees, with its gradient
    z_q: jax.Array  # [..., D] float32, the codes, differentiable in the codebook
    projection: jax.Array  # [..., D] float32, P(z_e, z_q), with the gradient of `projection_gradient`
    indices: jax.Array  # [...] int32
    discrete: jax.Array  # [..., 1] bool, M: True where the decoder sees the plain code
    gain: jax.Array  # [...] float32, alpha of P = alpha z_q; [..., g] where it projects in g > 1 groups

    @property
    def gain_seen(self) -> jax.Array:
        """The gain where it is in use: 1 where the decoder sees the plain code."""
        in_groups = self.gain.ndim > self.discrete.ndim - 1
        return jnp.where(self.discrete if in_groups else self.discrete[..., 0], 1.0, self.gain)


def unit(vectors: jax.Array) -> jax.Array:
    """`vectors` `[..., D]` at length 1; one that is shorter than √ε stays short, and zero stays zero."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, EPSILON))


def straight_through(z_e: jax.Array, value: jax.Array) -> jax.Array:
    """`value` in the forward pass, bit for bit, and the gradient of `z_e` in the backward pass (both `[..., D]`)."""
    return stop_gradient(value) + (z_e - stop_gradient(z_e))


def rotation(z_e: jax.Array, value: jax.Array) -> jax.Array:
    """`value` in the forward pass, bit for bit, and in the backward pass the gradient turned with it (`[..., D]`).

    The rotation trick (Fifty et al., 2024, arXiv:2410.06424): `value` is taken for λ R z_e, with λ = |value| / |z_e|
    and R the rotation of z_e's direction onto that of `value`, both constants; so the Jacobian is λ R. Where either
    vector is zero there is no direction to turn, and the gradient is that of `straight_through`.
    """
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


# What gradient plain codes pass to z_e. Each takes (z_e, z_q); the value is z_q.
ESTIMATORS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "straight_through": straight_through,
    "rotation": rotation,
}


def gain(z_e: jax.Array, code: jax.Array) -> jax.Array:
    """α = ⟨z_e, e⟩ / max(|e|², ε), `[...]`: the multiple of the code that is nearest to `z_e`."""
    return jnp.sum(z_e * code, axis=-1) / jnp.maximum(jnp.sum(code * code, axis=-1), EPSILON)


def signed_length(z_e: jax.Array, code: jax.Array) -> jax.Array:
    """ρ = ⟨z_e, e⟩ / |e|, `[...]`: the gain without the code's arbitrary length, P = ρ e/|e|."""
    norm = jnp.sqrt(jnp.maximum(jnp.sum(code * code, axis=-1), EPSILON))
    return jnp.sum(z_e * code, axis=-1) / norm


def project(z_e: jax.Array, code: jax.Array) -> jax.Array:
    """P(z_e, e) = α e, `[..., D]`: the orthogonal projection onto the line of `code`; a zero code gives zero."""
    return gain(z_e, code)[..., None] * code


# What the gradient of a projection is (the report does not say). Each takes (z_e, code); the value is P(z_e, code).
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
    frequency: jax.Array,
    *,
    num_frequent: int | jax.Array | None = None,
    frequent_mass: float | None = None,
) -> jax.Array:
    """Which codes count as frequent, `[K]` bool, by the table `frequency` `[K]` (F, non-negative).

    Exactly one rule is given. `num_frequent` (S): the S most frequent codes, ties to the lowest index.
    `frequent_mass` (m): codes in falling order of F while the sum *before* them is below m ΣF. An empty table
    (ΣF = 0) makes every code frequent.
    """
    if (num_frequent is None) == (frequent_mass is None):
        raise ValueError("give exactly one of num_frequent and frequent_mass")
    order = jnp.argsort(-frequency, stable=True)
    if frequent_mass is None:
        chosen = jnp.arange(frequency.shape[0]) < jnp.asarray(num_frequent)
    else:
        running_sum = jnp.cumsum(frequency[order])
        sum_before = jnp.concatenate([jnp.zeros(1, running_sum.dtype), running_sum[:-1]])
        chosen = sum_before < frequent_mass * running_sum[-1]
    frequent = jnp.zeros(frequency.shape, bool).at[order].set(chosen)
    return frequent | (jnp.sum(frequency) == 0)


def in_groups(vectors: jax.Array, groups: int) -> jax.Array:
    """`[..., D]` as `[..., g, D/g]`, to project each group of channels for itself; one group is the vector as it is."""
    return vectors if groups == 1 else vectors.reshape(*vectors.shape[:-1], groups, -1)


def frequency_mask(indices: jax.Array, frequent: jax.Array) -> jax.Array:
    """M `[..., 1]` bool: True where the code of `indices` `[...]` is `frequent` `[K]`."""
    return frequent[indices][..., None]


def hybrid_latent(
    z_e: jax.Array,
    codebook: jax.Array,
    indices: jax.Array,
    frequent: jax.Array,
    *,
    mode: str,
    projection_gradient: str = "straight_through",
    projection_groups: int = 1,
    estimator: str = "straight_through",
) -> HybridLatent:
    """The latent of `mode` from `z_e` `[..., D]`, its codes `indices` `[...]` and the `frequent` codes `[K]` bool.

    `vq` and `projected` are the cases where every code, or none, is frequent, so one expression serves all four and
    frequency(S=K) = vq, combined(S=K) = vq and combined(S=0) = projected hold bit for bit. `frequent` is unused there.
    With `projection_groups` g, each of g groups of D/g channels has a gain of its own: g = D gives z_e back.
    """
    chex.assert_equal_shape_prefix([z_e, indices], indices.ndim)
    z_e = z_e.astype(jnp.float32)
    z_q = codebook[indices]
    parts, code_parts = in_groups(z_e, projection_groups), in_groups(z_q, projection_groups)
    projection = PROJECTION_GRADIENTS[projection_gradient](parts, code_parts).reshape(z_e.shape)
    if mode in ("vq", "projected"):
        frequent = jnp.full(frequent.shape, mode == "vq")
    discrete = frequency_mask(indices, frequent)
    continuous = z_e if mode == "frequency" else projection
    return HybridLatent(
        z_bar=jnp.where(discrete, ESTIMATORS[estimator](z_e, z_q), continuous),
        z_q=z_q,
        projection=projection,
        indices=indices,
        discrete=discrete,
        gain=gain(stop_gradient(parts), stop_gradient(code_parts)),
    )


def plain_latent(z_e: jax.Array, z_q: jax.Array, indices: jax.Array, z_bar: jax.Array) -> HybridLatent:
    """The latent of a quantizer that has no lines to project on: `z_bar` `[..., D]` is z_q with its gradient."""
    return HybridLatent(
        z_bar=z_bar,
        z_q=z_q,
        projection=z_q,
        indices=indices,
        discrete=jnp.ones((*z_e.shape[:-1], 1), bool),
        gain=jnp.ones(z_e.shape[:-1]),
    )


def latent_from_codes(indices: jax.Array, codebook: jax.Array, gains: jax.Array | None = None) -> jax.Array:
    """`[..., D]` for the decoder from `indices` `[...]`: the codes, or each times its gain `[...]` or `[..., g]`."""
    codes = codebook[indices]
    if gains is None:
        return codes
    groups = gains.shape[-1] if gains.ndim > indices.ndim else 1
    return (gains[..., None] * in_groups(codes, groups)).reshape(codes.shape)
