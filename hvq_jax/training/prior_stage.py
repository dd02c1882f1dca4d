"""The second stage: a prior over the latents of the frozen autoencoder, as the training loop sees it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hvq_jax.data.pipeline import Batch
from hvq_jax.metrics import Mean
from hvq_jax.parts import in_parts
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.prior import Nats, Prior
from hvq_jax.training.stage import Stage

T = TypeVar("T")


@struct.dataclass
class NatsPerLatent(Generic[T]):
    """Nats of codes and of continuous parts, each a number or a running `Mean`."""

    codes: T
    continuous: T
    of_each_code: tuple[T, ...] = ()  # of the L codes of a position, where L > 1; they add up to `codes`
    density: T | None = None  # of residuals, where they are given; see `Prior.density`

    @classmethod
    def reduce(cls, nats: Nats, reduction: Callable[[jax.Array], T], density: T | None = None) -> "NatsPerLatent[T]":
        """Return the nats `[B]` of latents as numbers or means: each is the `reduction` of an array `[B]`."""
        of_each = () if nats.of_each_code is None else tuple(map(reduction, jnp.moveaxis(nats.of_each_code, -1, 0)))
        return cls(reduction(nats.codes), reduction(nats.continuous), of_each, density)


@dataclasses.dataclass(frozen=True, eq=False)
class PriorStage(Stage):
    """The stage for `model` on tokens `[B, h, w, L + c]`, or plain codes `[B, h, w]`.

    Items to evaluate may be pairs of tokens and the residuals before rounding, `[B, h, w, D]` float32.
    """

    name: ClassVar[str] = "prior"
    objective: ClassVar[str] = "nats_per_latent"
    items: ClassVar[str] = "latents"

    model: Prior
    latent_shape: tuple[int, int]
    num_pixels: int = 0  # H·W, which turns bits per image into bits per pixel; 0 where there are no images
    has_continuous: np.ndarray | None = None  # [P, K] bool, see `Prior`; None for plain codes
    label_dropout: float = 0.0  # probability that a label is replaced by no class in training

    def _labels(self, labels: jax.Array) -> jax.Array | None:
        return labels if self.model.num_classes else None

    def _tokens(self, batch: Batch) -> jax.Array:
        tokens = batch.items[0] if isinstance(batch.items, tuple) else batch.items
        tokens = tokens.astype(jnp.int32)
        return tokens if tokens.ndim == 4 else tokens[..., None]

    def _nats(self, params: Any, batch: Batch, labels: jax.Array, **options: Any) -> Nats:
        arguments = (self._tokens(batch), self._labels(labels), self.has_continuous)
        scored: Any = self.model.apply(params, *arguments, **options)
        return scored.of_latents()

    @property
    def blank(self) -> "PriorStage":
        """The stage of any latents of this shape."""
        return PriorStage(self.model, self.latent_shape)

    @property
    def item(self) -> jax.ShapeDtypeStruct:
        """The tokens `[h, w, L + c]` of a latent as they are placed on the devices, where 16 bits are enough."""
        return jax.ShapeDtypeStruct((*self.latent_shape, self.model.num_channels), jnp.int16)

    def init(self, key: jax.Array) -> tuple[Any, None]:
        """Return fresh params; there is no model state."""
        tokens = jnp.zeros((1, *self.latent_shape, self.model.num_channels), jnp.int32)
        return self.model.init(key, tokens, self._labels(jnp.zeros(1, jnp.int32)), self._somewhere), None

    @property
    def _somewhere(self) -> np.ndarray:
        """`has_continuous`, or a blank mask per head, since the shapes of parameters do not depend on masks."""
        if self.has_continuous is not None:
            return self.has_continuous
        return np.zeros((len(self.model.heads), self.model.num_codes), bool)

    def loss(
        self, params: Any, state: None, batch: Batch, key: jax.Array, axis_name: str | None, num_parts: int = 1
    ) -> tuple[jax.Array, tuple[None, NatsPerLatent]]:
        """Return nats per position; labels and features are dropped by `key`, differently on each device and part."""
        del state
        if axis_name:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        label_key, dropout_key = jax.random.split(key)
        dropped = jax.random.bernoulli(label_key, self.label_dropout, batch.labels.shape)
        labels = jnp.where(dropped, NO_CLASS, batch.labels)
        keys = jax.random.split(dropout_key, num_parts) if num_parts > 1 else dropout_key[None]

        def score(items: jax.Array, labels: jax.Array, keys: jax.Array) -> tuple[Nats, tuple[()]]:
            part = dataclasses.replace(batch, items=items)
            return self._nats(params, part, labels, train=True, rngs={"dropout": keys[0]}), ()

        per_latent, _ = in_parts(score, num_parts, batch.items, labels, keys)
        means = NatsPerLatent.reduce(per_latent, jnp.mean)
        return (means.codes + means.continuous) / math.prod(self.latent_shape), (None, means)

    def evaluate(self, params: Any, state: None, batch: Batch) -> NatsPerLatent:
        """Return sums of nats per latent."""
        del state
        per_latent = self._nats(params, batch, batch.labels)
        density = None
        if isinstance(batch.items, tuple):
            arguments = (self._tokens(batch), self._labels(batch.labels), self.has_continuous, batch.items[1])
            scored: Any = self.model.apply(params, *arguments, method="density")
            density = Mean.of(scored.sum(axis=(1, 2)), batch.mask)
        return NatsPerLatent.reduce(per_latent, lambda nats: Mean.of(nats, batch.mask), density)

    def _record(self, nats: NatsPerLatent) -> dict[str, float]:
        """Return the log record of `nats`, whose fields are numbers."""
        parts = {f"nats_of_code_{number}": float(of_code) for number, of_code in enumerate(nats.of_each_code, 1)}
        if self.model.heads:
            parts |= {"nats_of_codes": float(nats.codes), "nats_of_continuous": float(nats.continuous)}
        return {"nats_per_latent": float(nats.codes) + float(nats.continuous), **parts}

    @staticmethod
    def in_words(metrics: Mapping[str, float]) -> str:
        """Return the rate: bits per image where there are images, else nats per latent."""
        if "bits_per_image" not in metrics:
            return f"{metrics['nats_per_latent']:.1f} nats per latent"
        return f"{metrics['bits_per_image']:.1f} bits per image, {metrics['bits_per_pixel']:.3f} per pixel"

    def summarise_steps(self, metrics: NatsPerLatent) -> dict[str, float]:
        """Return mean nats per latent."""
        return self._record(jax.tree.map(lambda nats: nats.mean(), metrics))

    def summarise(self, sums: NatsPerLatent) -> dict[str, float]:
        """Return the loss, nats per latent and, where there are images, bits per image and per pixel."""
        of_latent = self._record(jax.tree.map(lambda mean: mean.value, sums, is_leaf=lambda x: isinstance(x, Mean)))
        nats, pixels = of_latent["nats_per_latent"], self.num_pixels
        bits = nats / math.log(2)
        of_image = {"bits_per_image": bits, "bits_per_pixel": bits / pixels} if pixels else {}
        if pixels and self.model.heads:
            per_pixel = 1 / (math.log(2) * pixels)
            of_image["bits_per_pixel_of_codes"] = of_latent["nats_of_codes"] * per_pixel
            of_image["bits_per_pixel_of_continuous"] = of_latent["nats_of_continuous"] * per_pixel
        density = {} if sums.density is None else {"density_of_continuous": float(sums.density.value)}
        return {"loss": nats / math.prod(self.latent_shape), **of_latent, **of_image, **density}
