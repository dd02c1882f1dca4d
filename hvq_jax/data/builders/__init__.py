"""TFDS builders that do not need TensorFlow, by the name that `--config.data.name` takes."""

from hvq_jax.data.builders.base import ImageBuilder
from hvq_jax.data.builders.cifar import Cifar10, Cifar100
from hvq_jax.data.builders.fashion_mnist_mini import FashionMnistMini
from hvq_jax.data.builders.image_arrays import ImageArrays
from hvq_jax.data.builders.image_folder import ImageFolder
from hvq_jax.data.builders.image_table import ImageTable
from hvq_jax.data.builders.image_tar import ImageTar
from hvq_jax.data.builders.image_zip import ImageZip
from hvq_jax.data.builders.mnist import FashionMnist, Mnist

BUILDERS: dict[str, type[ImageBuilder]] = {
    builder.name: builder
    for builder in (
        Mnist,
        FashionMnist,
        FashionMnistMini,
        Cifar10,
        Cifar100,
        ImageFolder,
        ImageArrays,
        ImageTable,
        ImageTar,
        ImageZip,
    )
}
