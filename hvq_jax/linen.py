"""A quantizer as a Flax Linen module.

class Network(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        quantizer = hvq.HybridQuantizer(dim=64, num_codes=512, mode="projected")
        latent = quantizer(encoder(images), train=train)
        return decoder(latent.z_bar), latent.loss

variables = network.init(key, images)
(y, loss), updates = network.apply(
    variables, images, train=True, mutable=["codebook"], rngs={"codebook": step_key}
)
variables = {**variables, **updates}
"""

from typing import Any

import jax
from flax import linen as nn
from jax.typing import ArrayLike

from hvq_jax.codes import Codes
from hvq_jax.errors import ArgumentError
from hvq_jax.hybrid_quantizer import HybridQuantizerOptions, Layer, Quantized, make_layer, with_options_described

COLLECTION = "codebook"  # the variables that are not learned by gradient, and the stream of random keys


@with_options_described
class HybridQuantizer(HybridQuantizerOptions, nn.Module):  # type: ignore[misc]  # a frozen base, for type checkers only
    """Quantize vectors `[..., D]` of any rank, such as those of sequences, images or volumes.

    >>> import jax.numpy as jnp
    >>> quantizer, z_e = HybridQuantizer(dim=4, num_codes=8, mode="vq"), jnp.ones((2, 10, 4))
    >>> variables = jax.jit(quantizer.init)(jax.random.key(0), z_e)
    >>> latent, updates = quantizer.apply(
    ...     variables, z_e, train=True, mutable=["codebook"], rngs={"codebook": jax.random.key(1)}
    ... )
    >>> latent.z_bar.shape, latent.indices.shape, latent.loss.shape
    ((2, 10, 4), (2, 10), ())

    What is learned by gradient is in "params"; the rest (frequencies, moving averages, a counter of steps) is in the
    collection "codebook", which a call with `train=True` updates. Such a call needs `mutable=["codebook"]` and a key
    for the stream "codebook", with which codes are drawn from the batch when they start or are revived; on several
    devices (`axis_name`), the first one's key counts. `init` and calls without `train` update nothing.

    Computations are in float32, whatever the dtype of z_e; the latent is returned in the dtype of z_e.
    """

    def __post_init__(self) -> None:
        """Check the options; raise ArgumentError with the name of the first bad one."""
        make_layer(self)
        super().__post_init__()

    def setup(self) -> None:
        """Make the variables."""
        layer = self._layer
        params, state = layer.shapes

        def new_param(key: jax.Array, name: str) -> Any:
            return layer.init(key)[0][name]

        def new_variable(name: str) -> Any:
            return layer.init(self.make_rng("params"))[1][name]

        self._learned = {name: self.param(name, new_param, name) for name in params}
        self._kept = {name: self.variable(COLLECTION, name, new_variable, name) for name in state}

    @property
    def _layer(self) -> Layer:
        return make_layer(self)

    def _arrays(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return dict(self._learned), {name: variable.value for name, variable in self._kept.items()}

    def __call__(self, z_e: ArrayLike, mask: ArrayLike | None = None, train: bool = False) -> Quantized:
        """Return the latent of `z_e`, with its loss, its indices and metrics.

        Args:
            z_e: [..., D] float, D = `dim_in`, or `dim` without it.
            mask: [...] bool, False where a position is padding: it is neither counted nor learned from, has no loss,
                the index -1 and the latent 0. None: nowhere.
            train: whether to update the codes that are not learned by gradient, and the frequencies.

        Raises:
            ArgumentError: an argument has another shape or dtype, or a training call lacks the stream "codebook" or
                may not update the collection "codebook".
        """
        z_e, mask = self._layer.check(z_e, mask)
        params, state = self._arrays()
        if not train or self.is_initializing():
            return self._layer.quantize(params, state, z_e, mask)
        if not self.is_mutable_collection(COLLECTION):
            raise ArgumentError(
                "mutable", f'train=True updates the collection "{COLLECTION}": apply with mutable=["{COLLECTION}"]'
            )
        if not self.has_rng(COLLECTION):
            raise ArgumentError(
                "rngs", f'train=True draws codes from the batch: apply with rngs={{"{COLLECTION}": key, ...}}'
            )
        quantized, state = self._layer.train(params, state, z_e, mask, self.make_rng(COLLECTION))
        for name, value in state.items():
            self._kept[name].value = value
        return quantized

    def codes_of(self, z_e: ArrayLike, mask: ArrayLike | None = None) -> Codes:
        """Return what has to be stored of `z_e`: `apply(variables, z_e, method="codes_of")`."""
        return self._layer.codes_of(*self._arrays(), z_e, mask)

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
        return self._layer.from_codes(*self._arrays(), indices, gains, residuals)

    def codes(self) -> jax.Array:
        """Return the code of each index, `[K, dim]` float32, or `[L, K, dim]`: `apply(variables, method="codes")`."""
        return self._layer.codes(*self._arrays())
