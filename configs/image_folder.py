"""Your own images, PNG, JPEG, WebP, BMP or GIF of any size, as 64×64 colour; the latent is 16×16.

    python train.py --config=configs/image_folder.py:projected --config.data.manual_dir=FOLDER --workdir=runs/mine

FOLDER has one folder per class, or only images; folders train, val and test may be added at the top. If val or test is
missing, a tenth of the images is taken from train, or data.validation_size or data.test_size images. Images are resized
to cover the size, and their centre is cropped. Change the size with --config.data.image_size=128 or (96,128), in
multiples of network.factor, and choose grey with --config.data.channels=1. An unreadable file stops the run with an
error that names it; with --config.data.skip_corrupt=True such files are skipped and listed.

Images in other files are trained on in the same way, with --config.data.name=image_arrays, image_table, image_tar or
image_zip: see docs/howto/data.md.

The images are prepared once, in data.data_dir (default: TFDS's folder), and again if the folder changes.
"""

from ml_collections import ConfigDict

from hvq_jax.runs.options import default_config


def get_config(mode: str = "projected") -> ConfigDict:
    """Return the default options for a folder of images, with twice the width for their colour and texture."""
    config = default_config(mode)
    config.data.name = "image_folder"
    config.data.image_size = 64
    config.data.channels = 3
    config.latent.dim = 128
    return config
