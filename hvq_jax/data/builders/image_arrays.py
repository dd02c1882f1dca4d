"""Images and labels as NumPy arrays: an .npz as those of MedMNIST, or .npy files."""

import collections
import functools
import pathlib
from collections.abc import Sequence

from hvq_jax.data.builders.array_collection import ADVICE, KNOWN, ArrayCollection, Rows, collect_arrays
from hvq_jax.data.builders.collection import damage_named, digest_of
from hvq_jax.data.builders.own_images import OwnImages
from hvq_jax.data.listing import find_files
from hvq_jax.files import open_regular
from hvq_jax.npz import npz_names, stored_array, stored_arrays
from hvq_jax.value_range import ValueRange

_MAGIC = b"\x93NUMPY"  # an .npy begins with it


class ImageArrays(OwnImages):
    """Images and labels in an .npz, an .npy, or a folder of .npy files."""

    OPTIONS = (*OwnImages.OPTIONS, "value_range")
    NEEDED = ("your file of arrays", "FILE")
    HAS_SIZE = True

    @staticmethod
    def collect(path: pathlib.Path, labels: str, value_range: ValueRange | None) -> ArrayCollection:
        """Read the headers of the arrays, and the labels."""
        folder, listing = find_files(path, (".npy",), "your .npz or .npy file, or a folder of .npy files")
        with damage_named(path, ADVICE):
            if path.is_dir():
                arrays, names = _arrays_of_folder(folder, [name for name in listing.images if "/" not in name])
            else:
                arrays, names = _arrays_of_file(path)
        left_out = listing.left_out + collections.Counter({"under another name": len(set(names) - KNOWN)})
        return collect_arrays(
            arrays,
            path,
            labels=labels,
            value_range=value_range,
            digest=digest_of(listing.images, labels, value_range),
            left_out=left_out,
        )


def _arrays_of_folder(folder: pathlib.Path, names: Sequence[str]) -> tuple[dict[str, Rows], list[str]]:
    """Return those of the .npy files of a folder that are known, by name, and all names."""
    stems = {name[: -len(".npy")]: name for name in names}
    read = {stem: functools.partial(open_regular, folder / name) for stem, name in stems.items() if stem in KNOWN}
    return {stem: stored_array(open_file) for stem, open_file in read.items()}, list(stems)


def _arrays_of_file(path: pathlib.Path) -> tuple[dict[str, Rows], list[str]]:
    """Return those of the arrays of an .npz that are known, by name, and all names; the array of an .npy as images."""
    open_file = functools.partial(open_regular, path)
    with open_file() as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            return {"images": stored_array(open_file)}, []
        file.seek(0)
        names = npz_names(file)
    return dict(stored_arrays(open_file, KNOWN)), names
