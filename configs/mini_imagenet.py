"""mini-ImageNet, 64×64 colour; the latent is 16×16. 38,400 / 9,600 / 12,000 images of 64 / 16 / 20 classes.

    python train.py --config=configs/mini_imagenet.py:projected --config.data.manual_dir=FOLDER --workdir=runs/mini

FOLDER holds train.csv, val.csv and test.csv with the columns filename and label (Ravi and Larochelle's splits) and the
pictures in images/. For the 84×84 of the few-shot literature: --config.data.image_size=84 (latent 21×21).

No class is in two splits, so a prior that is conditional on the class could not be validated: it is unconditional.
"""

from ml_collections import ConfigDict

from configs import image_folder


def get_config(mode: str = "projected") -> ConfigDict:
    """The options of a folder of images, with a prior that knows no classes."""
    config = image_folder.get_config(mode)
    config.prior.conditional = False
    return config
