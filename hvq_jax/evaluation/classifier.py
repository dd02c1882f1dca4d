"""A small convolutional classifier that judges class-conditional samples; it trains in seconds.

Its accuracy on samples says whether they show the class they were drawn for; its features are where
sets of images are compared. It is trained on the images at hand, so its figures compare runs on one
data set and nothing else.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hvq_jax.errors import UserError
from hvq_jax.images import to_float

NUM_FEATURES = 64

_SMALLEST_SIDE = 8
_LEARNING_RATE = 3e-3
_PREDICTED_AT_ONCE = 500


class Network(nn.Module):
    """Patches of 4 × 4, one convolution, one hidden layer."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images `[B, H, W, C]` in [-1, 1] to logits `[B, num_classes]` and features `[B, 64]`."""
        x = nn.relu(nn.Conv(32, (4, 4), strides=4)(x))
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        features = nn.relu(nn.Dense(NUM_FEATURES)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(features), features


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained `Network`."""

    network: Network
    variables: Any
    image_shape: tuple[int, ...]  # (H, W, C)


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    epochs: int = 8,
    batch_size: int = 128,
) -> Classifier:
    """Trains on uint8 images `[N, H, W, C]`, sides ≥ 8, and labels `[N]` in 0…num_classes − 1.

    Adam with cosine decay on shuffled batches; an epoch drops what does not fill its last batch.
    The same seed gives the same parameters. Raises UserError for other images or labels.
    """
    _check_images(images)
    _check_labels(labels, len(images), num_classes)
    batch_size = min(batch_size, len(images))
    steps_per_epoch = len(images) // batch_size
    network, num_steps = Network(num_classes), epochs * steps_per_epoch
    variables, moments = _init(network, num_steps, jax.random.key(seed), images[:1])
    shuffle = np.random.default_rng(seed)
    # Not a `lax.scan`: inside one, XLA's convolutions on CPU are an order of magnitude slower.
    for _ in range(epochs):
        order = shuffle.permutation(len(images))[: steps_per_epoch * batch_size]
        for batch in order.reshape(steps_per_epoch, batch_size):
            variables, moments = _update(network, num_steps, variables, moments, images[batch], labels[batch])
    return Classifier(network, variables, images.shape[1:])


def predict(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """The most probable class of each uint8 image `[N, H, W, C]`: int32 `[N]`."""
    return np.concatenate([logits.argmax(-1) for logits, _ in _outputs(classifier, images)])


def accuracy(classifier: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the uint8 images `[N, H, W, C]` whose predicted class is their label."""
    _check_labels(labels, len(images), classifier.network.num_classes)
    return float(np.mean(predict(classifier, images) == labels))


def features(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """The hidden layer's activations for uint8 images `[N, H, W, C]`: float32 `[N, 64]`."""
    return np.concatenate([features for _, features in _outputs(classifier, images)])


def _optimizer(num_steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))


@partial(jax.jit, static_argnames=("network", "num_steps"))
def _init(network: Network, num_steps: int, key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
    variables = network.init(key, to_float(images))
    return variables, _optimizer(num_steps).init(variables)


@partial(jax.jit, static_argnames=("network", "num_steps"))
def _update(
    network: Network,
    num_steps: int,
    variables: Any,
    moments: Any,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[Any, Any]:
    def loss(variables: Any) -> jax.Array:
        logits, _ = network.apply(variables, to_float(images))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    updates, moments = _optimizer(num_steps).update(jax.grad(loss)(variables), moments)
    return optax.apply_updates(variables, updates), moments


@partial(jax.jit, static_argnames="network")
def _apply(network: Network, variables: Any, images: jax.Array) -> Any:
    return network.apply(variables, to_float(images))


def _outputs(classifier: Classifier, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits and features, part by part; the last is padded so that one shape is compiled."""
    _check_images(images)
    if images.shape[1:] != classifier.image_shape:
        raise UserError(
            f"the classifier was trained on images of shape {classifier.image_shape}, these are {images.shape[1:]}"
        )
    for start in range(0, len(images), _PREDICTED_AT_ONCE):
        part = images[start : start + _PREDICTED_AT_ONCE]
        padding = [(0, _PREDICTED_AT_ONCE - len(part)), (0, 0), (0, 0), (0, 0)]
        logits, features = _apply(classifier.network, classifier.variables, np.pad(part, padding))
        yield np.asarray(logits)[: len(part)], np.asarray(features)[: len(part)]


def _check_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise UserError(
            "the classifier takes uint8 images [N, H, W, C], at least one; "
            f"these are {images.dtype} of shape {images.shape}"
        )
    if min(images.shape[1:3]) < _SMALLEST_SIDE:
        raise UserError(
            f"the classifier takes images of {_SMALLEST_SIDE} pixels a side or more; "
            f"these are of shape {images.shape[1:]}"
        )


def _check_labels(labels: np.ndarray, num_images: int, num_classes: int) -> None:
    if labels.shape != (num_images,):
        raise UserError(f"{num_images} images need labels [{num_images}], not {labels.shape}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"labels must lie in 0…{num_classes - 1}; these go from {labels.min()} to {labels.max()}")
