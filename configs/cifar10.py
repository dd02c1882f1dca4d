"""CIFAR-10, 32×32 colour, 10 classes; the latent is 8×8.

    python train.py --config=configs/cifar10.py:projected --workdir=runs/cifar10

The data is downloaded, or read from --config.data.manual_dir=DIR, which contains the published
cifar-10-binary.tar.gz or cifar-10-python.tar.gz. Neither has to be unpacked.
"""

from ml_collections import ConfigDict

from hvq_jax.runs.options import default_config


def get_config(mode: str = "projected") -> ConfigDict:
    """Return the default options for CIFAR-10, with twice the width for its colour and texture."""
    config = default_config(mode)
    config.data.name = "cifar10"
    config.latent.dim = 128
    config.autoencoder.num_epochs = 50
    config.prior.num_epochs = 50
    return config
