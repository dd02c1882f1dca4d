"""mini-ImageNet, 64×64 colour; the latent is 16×16. 38,400 / 9,600 / 12,000 images of 64 / 16 / 20 classes.

    python train.py --config=configs/mini_imagenet.py:projected --config.data.manual_dir=FOLDER --workdir=runs/mini

FOLDER has train.csv, val.csv and test.csv with the columns filename and label (Ravi and Larochelle's splits), and the
images in images/. For the 84×84 of the few-shot literature set --config.data.image_size=84 (latent 21×21).

Each class is in one split only, so a class-conditional prior could not be validated. The prior is unconditional.
"""

from ml_collections import ConfigDict

from hvq_jax.runs.options import default_config


def get_config(mode: str = "projected") -> ConfigDict:
    """Return the options for a folder of images, with an unconditional prior."""
    config = default_config(mode)
    config.data.name = "image_folder"
    config.data.image_size = 64
    config.data.channels = 3
    config.latent.dim = 128
    config.prior.conditional = False
    return config
