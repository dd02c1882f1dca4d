"""Fine-tune a decoder on what is transmitted, as a stage of training.

A decoder that was trained on exact lengths or residuals is judged unfairly on rounded ones. Everything but the decoder
stays as it is, and so do the tokens and their bits.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.data.datasets import AnySplit, Split
from hvq_jax.data.pipeline import Batch
from hvq_jax.images import to_float
from hvq_jax.metrics import Mean, mse
from hvq_jax.priors.tokens import Tables, from_tokens
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class TransmittedSplit(Split):
    """A split of tokens, read as pairs: tokens, and the images that they were made from."""

    images: AnySplit

    def read(self, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return ((tokens, images `[n, H, W, C]` uint8), labels) of the items `rows`, int [n]."""
        tokens, labels = super().read(rows)
        return (tokens, self.images.read(rows)[0]), labels


@dataclasses.dataclass(frozen=True, eq=False)
class DecoderStage(Stage):
    """The decoder of `model` alone, on tokens with their images; the rest of `variables` is frozen."""

    name: ClassVar[str] = "decoder"
    objective: ClassVar[str] = "mse"
    items: ClassVar[str] = "images"

    model: Autoencoder
    variables: Variables
    tables: Tables

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Return the decoder's params and batch statistics as they were trained."""
        del key
        trained = self.variables.params["decoder"], self.variables.state.batch_stats["decoder"]
        params, batch_stats = jax.tree.map(jnp.asarray, trained)
        return params, batch_stats

    def _received(self, tokens: jax.Array) -> jax.Array:
        vectors = partial(autoencoder.vectors, self.model, self.variables)
        groups = self.model.latent_options.projection_groups
        return from_tokens(tokens.astype(jnp.int32), self.tables, vectors, groups)[0]

    def loss(
        self, params: Any, state: Any, batch: Batch, key: jax.Array, axis_name: str | None, num_parts: int = 1
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """Return the MSE of the images, with the batch's own statistics; raise ValueError for several parts."""
        del key
        if num_parts > 1:
            raise ValueError(f"num_parts={num_parts}: a decoder is fine-tuned on whole batches")
        tokens, images = batch.items
        decoded, updates = self.model.decoder(axis_name).apply(
            {"params": params, "batch_stats": state}, self._received(tokens), train=True, mutable=["batch_stats"]
        )
        error = jnp.mean(mse(to_float(images), decoded))
        return error, (updates.get("batch_stats", {}), {"mse": error})

    def evaluate(self, params: Any, state: Any, batch: Batch) -> dict[str, Mean]:
        """Return the sum of the MSE over a batch."""
        tokens, images = batch.items
        decoded = self.model.decoder().apply(
            {"params": params, "batch_stats": state}, self._received(tokens), train=False
        )
        return {"mse": Mean.of(mse(to_float(images), decoded), batch.mask)}

    def summarise_steps(self, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """Return the mean MSE on [-1, 1]."""
        return {"mse": float(metrics["mse"].mean())}

    def summarise(self, sums: dict[str, Mean]) -> dict[str, float]:
        """Return the MSE on [-1, 1]."""
        return {"mse": float(sums["mse"].value)}

    def put_into(self, trained: TrainState, fine_tuned: TrainState) -> TrainState:
        """Return the autoencoder's state with the decoder of `fine_tuned`."""
        params = {**trained.eval_params, "decoder": fine_tuned.eval_params}
        batch_stats = {**trained.model_state.batch_stats, "decoder": fine_tuned.model_state}
        state = dataclasses.replace(trained.model_state, batch_stats=batch_stats)
        return dataclasses.replace(trained, params=params, average_params=None, model_state=state)
