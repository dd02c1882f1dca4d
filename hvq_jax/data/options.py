"""The options of the data set."""

import dataclasses
import math

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.decode import as_sides
from hvq_jax.errors import ArgumentError
from hvq_jax.options import Options, option

_MOST_HELD_OUT = 5000  # items of a split whose size is not given


@dataclasses.dataclass(frozen=True)
class DataOptions(Options):
    """The data set, and how its images are stored and split."""

    name: str = option(
        "fashion_mnist",
        f"{', '.join(BUILDERS)}, or any data set that TFDS has prepared: name[/config][:version]",
    )
    data_dir: str | None = option(None, "folder of prepared data sets; None: TFDS's folder", changeable=True)
    # The data itself is checked against the run's fingerprint.
    manual_dir: str | None = option(
        None,
        "folder of the published files, None: download them; your folder or file of images, for image_…",
        changeable=True,
    )
    image_size: int | tuple[int, ...] = option(
        0, "side, or (height, width): images are resized to cover it and their centre is cropped; 0: as stored", low=0
    )
    channels: int = option(0, "1: grey, 3: colour, 0: as stored", choices=(0, 1, 3))
    validation_size: int | None = option(
        None, "images taken from train where there is no validation split; None: a tenth, at most 5,000", low=1
    )
    test_size: int | None = option(
        None, "images taken from train where there is no test split; None: a tenth, at most 5,000", low=1
    )
    labels: str = option(
        "auto",
        "where the classes of image_… are from. auto: the files, where they are clear; none: no classes; folder: names "
        "of folders (image_folder, image_zip); or a column (image_table), or a field of the .json files (image_tar)",
    )
    value_range: tuple[int, ...] | None = option(
        None,
        "black and white of float images (image_arrays); None: (-1, 1), if there are negative values",
        choices=((0, 1), (-1, 1)),
    )
    skip_corrupt: bool = option(False, "leave out images of image_… that cannot be read, and list them")
    memory_gib: float = option(
        4.0, "data sets larger than this are streamed from disk", low=0, high=math.inf, changeable=True
    )

    def __post_init__(self) -> None:
        """Check the options, and that `image_size` is a side or two of them."""
        super().__post_init__()
        if isinstance(self.image_size, tuple) and (len(self.image_size) != 2 or min(self.image_size) < 1):
            raise ArgumentError(f"image_size={self.image_size}", "must be a side, or (height, width), in pixels")

    def held_out_size(self, split: str, count: int) -> int:
        """Return the number of items that are taken out of `count` training items for the missing `split`."""
        given: int | None = getattr(self, f"{split}_size")
        return min(max(count // 10, 1), _MOST_HELD_OUT) if given is None else given

    @property
    def sides(self) -> tuple[int, int] | None:
        """(height, width) that images are resized to cover, None where they stay as stored."""
        return as_sides(self.image_size)
