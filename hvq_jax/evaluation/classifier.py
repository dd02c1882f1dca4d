"""A small convolutional classifier for judging class-conditional samples; it trains in seconds.

Its accuracy on samples measures whether they show the class they were drawn for, and sets of images are compared by its
features. It is trained on the given data set, so its metrics compare runs on that data set only.
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


class ClassifierNetwork(nn.Module):
    """A network with 4 × 4 patches, one convolution and one hidden layer."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map images `[B, H, W, C]` in [-1, 1] to logits `[B, num_classes]` and features `[B, 64]`."""
        x = nn.relu(nn.Conv(32, (4, 4), strides=4)(x))
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        features = nn.relu(nn.Dense(NUM_FEATURES)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(features), features


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained `ClassifierNetwork`."""

    network: ClassifierNetwork
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
    """Train a classifier with Adam and cosine decay on shuffled batches.

    The same seed gives the same parameters.

    Args:
        images: `[N, H, W, C]` uint8, with sides of at least 8 pixels.
        labels: `[N]` in 0…num_classes − 1.
        num_classes: number of classes.
        seed: seed of the parameters and of the shuffling.
        epochs: number of epochs.
        batch_size: images per batch; an incomplete last batch of an epoch is dropped.

    Raises:
        UserError: images or labels do not meet these conditions.
    """
    _check_images(images)
    _check_labels(labels, len(images), num_classes)
    batch_size = min(batch_size, len(images))
    steps_per_epoch = len(images) // batch_size
    network, num_steps = ClassifierNetwork(num_classes), epochs * steps_per_epoch
    variables, moments = _init(network, num_steps, jax.random.key(seed), images[:1])
    shuffle = np.random.default_rng(seed)
    # No `lax.scan`: XLA's convolutions on CPU are an order of magnitude slower inside one.
    for _ in range(epochs):
        order = shuffle.permutation(len(images))[: steps_per_epoch * batch_size]
        for batch in order.reshape(steps_per_epoch, batch_size):
            variables, moments = _update(network, num_steps, variables, moments, images[batch], labels[batch])
    return Classifier(network, variables, images.shape[1:])


def predict(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Return the most probable class, int32 `[N]`, of each uint8 image `[N, H, W, C]`."""
    return np.concatenate([logits.argmax(-1) for logits, _ in _outputs(classifier, images)])


def accuracy(classifier: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of uint8 images `[N, H, W, C]` whose predicted class is their label."""
    _check_labels(labels, len(images), classifier.network.num_classes)
    return float(np.mean(predict(classifier, images) == labels))


def features(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Return the activations of the hidden layer, float32 `[N, 64]`, for uint8 images `[N, H, W, C]`."""
    return np.concatenate([features for _, features in _outputs(classifier, images)])


def _optimizer(num_steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))


@partial(jax.jit, static_argnames=("network", "num_steps"))
def _init(network: ClassifierNetwork, num_steps: int, key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
    variables = network.init(key, to_float(images))
    return variables, _optimizer(num_steps).init(variables)


@partial(jax.jit, static_argnames=("network", "num_steps"))
def _update(
    network: ClassifierNetwork,
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
def _apply(network: ClassifierNetwork, variables: Any, images: jax.Array) -> Any:
    return network.apply(variables, to_float(images))


def _outputs(classifier: Classifier, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield logits and features in parts; the last part is padded so that only one shape is compiled."""
    _check_images(images)
    if images.shape[1:] != classifier.image_shape:
        raise UserError(
            f"the classifier was trained on images of shape {classifier.image_shape}, not {images.shape[1:]}"
        )
    for start in range(0, len(images), _PREDICTED_AT_ONCE):
        part = images[start : start + _PREDICTED_AT_ONCE]
        padding = [(0, _PREDICTED_AT_ONCE - len(part)), (0, 0), (0, 0), (0, 0)]
        logits, features = _apply(classifier.network, classifier.variables, np.pad(part, padding))
        yield np.asarray(logits)[: len(part)], np.asarray(features)[: len(part)]


def _check_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise UserError(
            f"the classifier takes at least one uint8 image [N, H, W, C], not {images.dtype} of shape {images.shape}"
        )
    if min(images.shape[1:3]) < _SMALLEST_SIDE:
        raise UserError(
            f"the classifier takes images of at least {_SMALLEST_SIDE} pixels per side, not of shape {images.shape[1:]}"
        )


def _check_labels(labels: np.ndarray, num_images: int, num_classes: int) -> None:
    if labels.shape != (num_images,):
        raise UserError(f"{num_images} images need labels of shape [{num_images}], not {labels.shape}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"labels must lie in 0…{num_classes - 1}, but range from {labels.min()} to {labels.max()}")
