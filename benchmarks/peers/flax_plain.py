"""The reference's VQ-VAE with Flax's own layers and `jax.jit`, as a newcomer to Flax would write it.

The mathematics is that of the other two, in NHWC, except that Flax's `BatchNorm` stores the biased running variance.
The modules have the names of `hvq_jax.networks.encoder_decoder`, so its variables can be used here after `converted`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state

LEARNING_RATE = 2e-4


class ResidualBlock(nn.Module):
    """A residual block: relu(x) + f(relu(x))."""

    dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[B, h, w, D]` to the same shape."""
        x = nn.relu(x)
        y = nn.Conv(self.dim, (3, 3), padding=1, name="conv_3x3")(x)
        y = nn.relu(_batch_norm("norm_3x3")(y))
        y = nn.Conv(self.dim, (1, 1), name="conv_1x1")(y)
        return x + _batch_norm("norm_1x1")(y)


class Encoder(nn.Module):
    """A network from images `[B, H, W, C]` to `z_e` `[B, H/4, W/4, D]`."""

    dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the network in training mode."""
        x = nn.Conv(self.dim, (4, 4), strides=2, padding=1, name="conv_in")(x)
        x = nn.relu(_batch_norm("norm_in")(x))
        x = nn.Conv(self.dim, (4, 4), strides=2, padding=1, name="conv_down")(x)
        x = ResidualBlock(self.dim, name="block_0")(x)
        return ResidualBlock(self.dim, name="block_1")(x)


class Decoder(nn.Module):
    """A network from latents `[B, h, w, D]` to images `[B, 4h, 4w, C]`."""

    dim: int
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the network in training mode."""
        x = ResidualBlock(self.dim, name="block_0")(x)
        x = nn.relu(ResidualBlock(self.dim, name="block_1")(x))
        x = nn.ConvTranspose(self.dim, (4, 4), strides=(2, 2), padding="SAME", name="conv_up")(x)
        x = nn.relu(_batch_norm("norm_up")(x))
        x = nn.ConvTranspose(self.channels, (4, 4), strides=(2, 2), padding="SAME", name="conv_out")(x)
        return nn.tanh(x)


class VQVAE(nn.Module):
    """Encoder, codebook and decoder, whose output is the loss of a batch."""

    channels: int
    dim: int
    num_codes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the sum of reconstruction, codebook and commitment terms, a scalar."""
        codes = self.param("codes", nn.initializers.uniform(), (self.num_codes, self.dim))
        z_e = Encoder(self.dim, name="encoder")(images)
        distances = jnp.sum(codes**2, axis=-1) - 2 * z_e @ codes.T
        z_q = codes[jnp.argmin(distances, axis=-1)]
        straight_through = z_e + jax.lax.stop_gradient(z_q - z_e)
        reconstructions = Decoder(self.dim, self.channels, name="decoder")(straight_through)
        return (
            jnp.mean((reconstructions - images) ** 2)
            + jnp.mean((z_q - jax.lax.stop_gradient(z_e)) ** 2)
            + jnp.mean((z_e - jax.lax.stop_gradient(z_q)) ** 2)
        )


class TrainState(train_state.TrainState):
    """A training state with batch statistics."""

    batch_stats: Any


def _batch_norm(name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, name=name)


def converted(variables: dict[str, Any]) -> dict[str, Any]:
    """Convert variables of `hvq_jax` for these modules: Flax flips the kernels of transposed convolutions."""

    def turn(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = jax.tree_util.keystr(path)
        return leaf[::-1, ::-1] if "kernel" in names and ("conv_up" in names or "conv_out" in names) else leaf

    params = {**variables["params"], "codes": variables["params"]["quantizer"]["codes"]}
    del params["quantizer"]
    return jax.tree_util.tree_map_with_path(turn, {**variables, "params": params})


def create_state(model: VQVAE, variables: dict[str, Any]) -> TrainState:
    """Return the state at step 0, with Adam."""
    return TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=optax.adam(LEARNING_RATE),
        batch_stats=variables["batch_stats"],
    )


@partial(jax.jit, donate_argnums=0)
def training_step(state: TrainState, images: jax.Array) -> tuple[TrainState, jax.Array]:
    """Take one step of Adam, and return the new state and the loss before the step."""

    def loss_function(params: Any) -> Any:
        variables = {"params": params, "batch_stats": state.batch_stats}
        apply: Callable[..., Any] = state.apply_fn
        return apply(variables, images, mutable=["batch_stats"])

    (loss, updates), gradients = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=updates["batch_stats"]), loss


def subject(variables: dict[str, Any], images: np.ndarray) -> tuple[Callable[[], Any], Callable[[Any], float]]:
    """Return the function that `benchmarks.speed` times, and a function from its result to the number to compare.

    Args:
        variables: as read by `hvq_jax.torch_reference.weights`; they determine the sizes of the model.
        images: [B, H, W, C] uint8.
    """
    variables = converted(variables)
    num_codes, dim = variables["params"]["codes"].shape
    state = create_state(VQVAE(images.shape[-1], dim, num_codes), variables)
    x = jnp.asarray(images, jnp.float32) / 127.5 - 1

    def call() -> jax.Array:
        nonlocal state
        state, loss = training_step(state, x)
        return jax.block_until_ready(loss)

    return call, float
