"""MNIST, 28×28 grey digits, 10 classes.

    python train.py --config=configs/mnist.py:projected --workdir=runs/mnist

Downloaded, or read from --config.data.manual_dir=DIR with the four published files.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(mode: str = "projected") -> ConfigDict:
    """The default options on MNIST."""
    config = default.get_config(mode)
    config.data.name = "mnist"
    config.sampling.classify = True
    return config
