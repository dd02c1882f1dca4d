"""Every option at its default; the other configs are small overrides of this one.

    python train.py --config=configs/default.py:projected --config.data.name=fashion_mnist --workdir=runs/a

The argument after the colon is the latent, by default projected. Set any option on the command line by its dotted name,
for example --config.latent.num_frequent=128. docs/options.md and `python train.py --help` list all options.
"""

from ml_collections import ConfigDict

from hvq_jax.runs.options import default_config


def get_config(mode: str = "projected") -> ConfigDict:
    """Return all options; `mode` is the latent the decoder sees."""
    return default_config(mode)
