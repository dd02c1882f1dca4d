"""The Fashion-MNIST example of vector-quantize-pytorch in Flax, with `HybridQuantizer` in place of its quantizer."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hvq_jax.linen import HybridQuantizer


class Network(nn.Module):
    """The example's network: 28×28 to 7×7 and back; images `[B, H, W, 1]` in [-1, 1]."""

    dim: int
    num_codes: int
    quantizer_options: dict[str, Any]

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Any]:
        """Return the images after encoder, latent and decoder, and the quantizer's result."""
        x = nn.Conv(16, (3, 3), name="conv_0")(images)
        x = jax.nn.gelu(_halved(x), approximate=False)
        x = _halved(nn.Conv(self.dim, (3, 3), name="conv_1")(x))
        quantizer = HybridQuantizer(dim=self.dim, num_codes=self.num_codes, **self.quantizer_options)
        latent = quantizer(x, train=train)
        x = nn.Conv(16, (3, 3), name="conv_2")(_doubled(latent.z_bar))
        x = nn.Conv(1, (3, 3), name="conv_3")(_doubled(jax.nn.gelu(x, approximate=False)))
        return jnp.clip(x, -1.0, 1.0), latent


def _halved(x: jax.Array) -> jax.Array:
    """Take the maximum of each 2×2 block."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _doubled(x: jax.Array) -> jax.Array:
    """Repeat each position in a 2×2 block."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


class Subject:
    """A training of the example, from the initial convolutions of the peer's.

    Args:
        seed: that of the quantizer.
        convolutions: the kernels and biases of `peers.torch_quantizer.Subject.convolutions`.
        options: of the example, and keyword arguments of `HybridQuantizer`.
    """

    def __init__(
        self,
        seed: int,
        convolutions: list[tuple[np.ndarray, np.ndarray]],
        *,
        dim: int,
        num_codes: int,
        learning_rate: float,
        loss_weight: float,
        **quantizer_options: Any,
    ) -> None:
        network = Network(dim, num_codes, quantizer_options)
        self._key, init_key = jax.random.split(jax.random.key(seed))
        variables = jax.jit(network.init)(init_key, jnp.zeros((1, 28, 28, 1), jnp.float32))
        layers = {f"conv_{i}": {"kernel": kernel, "bias": bias} for i, (kernel, bias) in enumerate(convolutions)}
        params = jax.tree.map(jnp.asarray, {**variables["params"], **layers})
        optimizer = optax.adamw(learning_rate, weight_decay=1e-2)
        self._state: Any = (params, variables["codebook"], jax.jit(optimizer.init)(params))

        def step(state: Any, images: jax.Array, key: jax.Array) -> Any:
            params, codebook, moments = state

            def loss(params: Any) -> tuple[jax.Array, Any]:
                (decoded, latent), updates = network.apply(
                    {"params": params, "codebook": codebook},
                    images,
                    train=True,
                    mutable=["codebook"],
                    rngs={"codebook": key},
                )
                return jnp.abs(decoded - images).mean() + loss_weight * latent.loss, updates["codebook"]

            gradients, codebook = jax.grad(loss, has_aux=True)(params)
            changes, moments = optimizer.update(gradients, moments, params)
            return optax.apply_updates(params, changes), codebook, moments

        def reconstruct(state: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
            decoded, latent = cast(Any, network.apply({"params": state[0], "codebook": state[1]}, images))
            return decoded, latent.indices

        self._step, self._reconstruct = jax.jit(step, donate_argnums=0), jax.jit(reconstruct)

    def step(self, images: np.ndarray) -> None:
        """Take a step on images `[B, H, W, 1]`."""
        self._key, key = jax.random.split(self._key)
        self._state = jax.block_until_ready(self._step(self._state, images, key))

    def reconstruct(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images `[B, H, W, 1]` after encoder, latent and decoder, and the indices `[B, h, w]`."""
        decoded, indices = self._reconstruct(self._state, images)
        return np.asarray(decoded), np.asarray(indices)
