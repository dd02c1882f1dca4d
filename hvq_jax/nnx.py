"""A quantizer as a Flax NNX module.

class Network(nnx.Module):
    def __init__(self, rngs):
        self.quantizer = hvq.nnx.HybridQuantizer(dim=64, num_codes=512, mode="projected", rngs=rngs)

    def __call__(self, images):
        latent = self.quantizer(self.encoder(images))
        return self.decoder(latent.z_bar), latent.loss
"""

import dataclasses
from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike

from hvq_jax.codes import Codes
from hvq_jax.errors import ArgumentError
from hvq_jax.hybrid_quantizer import HybridQuantizerOptions, Quantized, make_layer, with_options_described

STREAM = "codebook"


class Codebook(nnx.Variable):
    """An array of a quantizer that is not learned by gradient."""


@with_options_described
@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class HybridQuantizer(HybridQuantizerOptions, nnx.Module):  # type: ignore[misc]  # a frozen base, for type checkers only
    """Quantize vectors `[..., D]` of any rank, such as those of sequences, images or volumes.

    >>> import jax.numpy as jnp
    >>> quantizer = HybridQuantizer(dim=4, num_codes=8, mode="vq", rngs=nnx.Rngs(0, codebook=1))
    >>> latent = quantizer(jnp.ones((2, 10, 4)), train=True)
    >>> latent.z_bar.shape, latent.indices.shape, latent.loss.shape
    ((2, 10, 4), (2, 10), ())

    What is learned by gradient is `nnx.Param`; the rest (frequencies, moving averages, a counter of steps) is
    `Codebook`, which a training call updates. Such a call takes keys from the stream "codebook" of `rngs` (the default
    stream will do), with which codes are drawn from the batch when they start or are revived; on several devices
    (`axis_name`), the first one's key counts. `model.train()` and `model.eval()` say what calls without `train` do, at
    first they train.

    Computations are in float32, whatever the dtype of z_e; the latent is returned in the dtype of z_e.
    """

    rngs: dataclasses.InitVar[nnx.Rngs]

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        """Check the options and make the variables; raise ArgumentError with the name of the first bad option."""
        params, state = make_layer(self).init(rngs.params())
        self.deterministic = False
        self.params = nnx.data(jax.tree.map(nnx.Param, params))
        self.codebook = nnx.data(jax.tree.map(Codebook, state))
        self.stream = nnx.data(rngs[STREAM].fork() if STREAM in rngs or "default" in rngs else None)

    def _arrays(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return _values(self.params), _values(self.codebook)

    def __call__(self, z_e: ArrayLike, mask: ArrayLike | None = None, train: bool | None = None) -> Quantized:
        """Return the latent of `z_e`, with its loss, its indices and metrics.

        Args:
            z_e: [..., D] float, D = `dim_in`, or `dim` without it.
            mask: [...] bool, False where a position is padding: it is neither counted nor learned from, has no loss,
                the index -1 and the latent 0. None: nowhere.
            train: whether to update the codes that are not learned by gradient, and the frequencies; None: unless the
                module is `deterministic`, as `model.eval()` makes it.

        Raises:
            ArgumentError: an argument has another shape or dtype, or a training call has no stream of keys.
        """
        layer = make_layer(self)
        z_e, mask = layer.check(z_e, mask)
        if not (not self.deterministic if train is None else train):
            return layer.quantize(*self._arrays(), z_e, mask)
        if self.stream is None:
            raise ArgumentError(
                "rngs", f"training draws codes from the batch: make the module with nnx.Rngs(..., {STREAM}=seed)"
            )
        quantized, state = layer.train(*self._arrays(), z_e, mask, self.stream())
        jax.tree.map(Codebook.set_value, self.codebook, state, is_leaf=_is_variable)
        return quantized

    def codes_of(self, z_e: ArrayLike, mask: ArrayLike | None = None) -> Codes:
        """Return what has to be stored of `z_e`."""
        return make_layer(self).codes_of(*self._arrays(), z_e, mask)

    def from_codes(
        self, indices: ArrayLike, gains: ArrayLike | None = None, residuals: ArrayLike | None = None
    ) -> jax.Array:
        """Return the decoder's input `[..., D]` float32 of the codes that `codes_of` returns.

        Args:
            indices: [...] integer, or [..., L] for L codes per position; -1 for padding, whose latent is 0.
            gains: [...], or [..., g] in g groups; None: 1, the plain codes.
            residuals: [..., dim]; None: 0.

        Raises:
            ArgumentError: an index is out of range (checked outside of `jit`), or an argument does not fit.
        """
        return make_layer(self).from_codes(*self._arrays(), indices, gains, residuals)

    def codes(self) -> jax.Array:
        """Return the code of each index, `[K, dim]` float32, or `[L, K, dim]`."""
        return make_layer(self).codes(*self._arrays())


def _is_variable(value: Any) -> bool:
    return isinstance(value, nnx.Variable)


def _values(variables: Any) -> dict[str, Any]:
    values: dict[str, Any] = jax.tree.map(lambda variable: variable[...], variables, is_leaf=_is_variable)
    return values
