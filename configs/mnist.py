"""MNIST, 28×28 grey digits, 10 classes.

    python train.py --config=configs/mnist.py:projected --workdir=runs/mnist

The data is downloaded, or read from --config.data.manual_dir=DIR, which contains the four published files.
"""

from ml_collections import ConfigDict

from hvq_jax.runs.options import default_config


def get_config(mode: str = "projected") -> ConfigDict:
    """Return the default options for MNIST."""
    config = default_config(mode)
    config.data.name = "mnist"
    config.sampling.classify = True
    return config
