"""TFDS builders that do not need TensorFlow, by the name that `--config.data.name` takes."""

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvq_jax.data.builders.base import ImageBuilder

# The module and the class of each.
_HOMES = {
    "mnist": ("mnist", "Mnist"),
    "fashion_mnist": ("mnist", "FashionMnist"),
    "fashion_mnist_mini": ("fashion_mnist_mini", "FashionMnistMini"),
    "cifar10": ("cifar", "Cifar10"),
    "cifar100": ("cifar", "Cifar100"),
    "image_folder": ("image_folder", "ImageFolder"),
    "image_arrays": ("image_arrays", "ImageArrays"),
    "image_table": ("image_table", "ImageTable"),
    "image_tar": ("image_tar", "ImageTar"),
    "image_zip": ("image_zip", "ImageZip"),
}


class _Builders(Mapping[str, "type[ImageBuilder]"]):
    """The classes by name; each is imported when it is looked up, since it imports TFDS."""

    def __getitem__(self, name: str) -> "type[ImageBuilder]":
        module, attribute = _HOMES[name]
        found: type[ImageBuilder] = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        return found

    def __contains__(self, name: object) -> bool:
        return name in _HOMES

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


BUILDERS = _Builders()
