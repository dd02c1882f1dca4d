"""CIFAR-100, 32×32 colour, 100 classes (the fine labels); the latent is 8×8.

    python train.py --config=configs/cifar100.py:projected --workdir=runs/cifar100

The data is downloaded, or read from --config.data.manual_dir=DIR, which contains the published
cifar-100-binary.tar.gz or cifar-100-python.tar.gz. Neither has to be unpacked.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config(mode: str = "projected") -> ConfigDict:
    """Return the options of the CIFAR-10 config, for CIFAR-100."""
    config = cifar10.get_config(mode)
    config.data.name = "cifar100"
    return config
