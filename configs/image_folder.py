"""Your own images, PNG, JPEG or WebP of any size, as 64×64 colour; the latent is 16×16.

    python train.py --config=configs/image_folder.py:projected --config.data.manual_dir=FOLDER --workdir=runs/mine

FOLDER holds a folder a class, or the images themselves; one level of folders train, val and test may stand above. What
is missing of val and test is taken from train, so many images as data.validation_size and data.test_size say. The
shorter side is resized, the longer one cropped; other sizes with --config.data.image_size=128 (a multiple of 4), grey
with --config.data.channels=1. A file that cannot be read stops it by its name; --config.data.skip_corrupt=True leaves
such files out and lists them.

The images are prepared once, in data.data_dir (none: TFDS's folder), and anew when the folder has changed.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(mode: str = "projected") -> ConfigDict:
    """The default options on a folder of images, with twice the width for their colour and texture."""
    config = default.get_config(mode)
    config.data.name = "image_folder"
    config.data.image_size = 64
    config.data.channels = 3
    config.data.validation_size = 500
    config.data.test_size = 500
    config.latent.dim = 128
    return config
