"""Make a data set of patches of colour photographs from Debian's wallpapers: an .npz for `data.name=image_arrays`.

    apt-get install mate-backgrounds plasma-workspace-wallpapers
    python -m studies.frontier.photographs --out=photographs.npz
    python -m studies.frontier --size=colour --manual_dir=photographs.npz

Validation and test are patches of photographs of which training has none. Photographs are reduced by a whole factor to
a shorter side of at least 640 pixels and cut into patches of 32×32 that do not overlap. The packages
`gnome-backgrounds` and `ukui-wallpapers` of Debian 12 have drawings only, so nothing is taken from them.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hvq_jax.command import exit_status
from hvq_jax.errors import UserError
from hvq_jax.files import write_arrays

SIDE = 32
_SHORTER_SIDE = 640  # pixels, at least


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A photograph of a package, with its license; see also /usr/share/doc/PACKAGE/copyright."""

    path: str  # below /usr/share
    package: str
    license: str
    split: str = "train"


def _mate(name: str, split: str = "train") -> Photograph:
    return Photograph(f"backgrounds/mate/nature/{name}.jpg", "mate-backgrounds", "GPL-2+", split)


def _plasma(name: str, split: str = "train") -> Photograph:
    path = f"wallpapers/{name}/contents/images/2560x1600.jpg"
    return Photograph(path, "plasma-workspace-wallpapers", "LGPL-3", split)


# Those in colour; `Grey` and `ColdRipple` are grey, and the other wallpapers are drawn.
PHOTOGRAPHS = (
    *map(_mate, ("Aqua", "Blinds", "FreshFlower", "GreenMeadow", "RainDrops", "Storm", "TwoWings", "Wood")),
    *map(_plasma, ("BytheWater", "ColorfulCups", "DarkestHour", "Kite", "OneStandsOut", "summer_1am")),
    _mate("YellowFlower"),
    _mate("LadyBird", "val"),
    _plasma("FallenLeaf", "val"),
    _mate("Dune", "test"),
    _mate("Garden", "test"),
    _plasma("EveningGlow", "test"),
    _plasma("Path", "test"),
)


def patches(image: Image.Image) -> np.ndarray:
    """Return the patches `[N, 32, 32, 3]` uint8 of a photograph, row by row.

    >>> patches(Image.new("RGB", (100, 70))).shape
    (6, 32, 32, 3)
    """
    factor = max(min(image.size) // _SHORTER_SIDE, 1)
    pixels = np.asarray(image.convert("RGB").reduce(factor))
    rows, columns = (length // SIDE for length in pixels.shape[:2])
    grid = pixels[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE, 3)
    return grid.swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)


def make_arrays(share: Path) -> dict[str, np.ndarray]:
    """Return `train_images`, `val_images` and `test_images`, `[N, 32, 32, 3]` uint8, of the packages' files in `share`.

    Raises UserError if a photograph is missing.
    """
    splits: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    for photograph in PHOTOGRAPHS:
        path = share / photograph.path
        if not path.is_file():
            raise UserError(f"{path} is missing: install Debian's package {photograph.package}, or choose --share")
        with Image.open(path) as image:
            splits[photograph.split].append(patches(image))
    return {f"{split}_images": np.concatenate(parts) for split, parts in splits.items()}


def main(arguments: list[str]) -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--share", type=Path, default=Path("/usr/share"), help="default: /usr/share")
    options = parser.parse_args(arguments)
    arrays = make_arrays(options.share)
    write_arrays(options.out, arrays)
    print(", ".join(f"{name} {len(images):,}" for name, images in arrays.items()))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
