"""CIFAR-100, 32×32 colour, 100 classes (the fine labels); the latent is 8×8.

    python train.py --config=configs/cifar100.py:projected --workdir=runs/cifar100

The data is downloaded, or read from --config.data.manual_dir=DIR, which contains the published
cifar-100-binary.tar.gz or cifar-100-python.tar.gz. Neither has to be unpacked.
"""

from ml_collections import ConfigDict

from hvq_jax.runs.options import default_config


def get_config(mode: str = "projected") -> ConfigDict:
    """Return the default options for CIFAR-100, with twice the width for its colour and texture, as for CIFAR-10."""
    config = default_config(mode)
    config.data.name = "cifar100"
    config.latent.dim = 128
    config.autoencoder.num_epochs = 50
    config.prior.num_epochs = 50
    return config
