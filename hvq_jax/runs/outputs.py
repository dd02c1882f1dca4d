"""Output of drawn or reconstructed images: a single .png, an .npz with their latents, or a folder of PNGs.

Pieces are written as they arrive, so an .npz or a folder takes no more memory for a million images than for a hundred.
An existing file is replaced, or a folder created, only once everything is written.
"""

import contextlib
import dataclasses
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tqdm
from PIL import Image

from hvq_jax.errors import UserError
from hvq_jax.progress import progress_bar
from hvq_jax.runs.trained import Decoded

_MOST_IN_ONE_PNG = 1024


def is_png(out: str) -> bool:
    """Return whether all images go into one .png, which needs them all at once."""
    return Path(out).suffix == ".png"


def check_out(out: str, count: int) -> None:
    """Raise UserError if `count` images cannot be written to `out`; call it before computing anything."""
    path = Path(out)
    if path.suffix not in (".png", ".npz", ""):
        raise UserError(f"--out={out}: must end in .png or .npz, or be a folder name without an extension")
    if is_png(out) and count > _MOST_IN_ONE_PNG:
        raise UserError(
            f"--out={out}: {count} images are too many for one .png (at most {_MOST_IN_ONE_PNG}): choose a folder or "
            "an .npz"
        )
    if not path.suffix and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--out={out}: already exists and is not an empty folder; choose another name")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"--out={out}: the folder does not exist or is not writable")


def write(
    out: str,
    pieces: Iterable[Decoded],
    count: int,
    *,
    names: Iterable[str],
    save_png: Callable[[np.ndarray], None],
    sources: list[str] | None = None,
) -> None:
    """Write `count` images, showing a progress bar, and print the name of the output.

    Args:
        out: a path that ends in .png or .npz, or a folder.
        pieces: the images and their latents.
        count: number of images.
        names: file names, without extension, for a folder.
        save_png: function that writes the .png of all images `[N, H, W, C]` uint8.
        sources: names of the images, stored as `names` in an .npz.
    """
    path = Path(out)
    with progress_bar(total=count, desc="Images", unit=" images", disable=None) as progress:  # on a terminal
        pieces = _counted(pieces, progress)
        if is_png(out):
            save_png(np.concatenate([piece.images for piece in pieces]))
        elif path.suffix:
            _write_arrays(path, pieces, count, {} if sources is None else {"names": np.array(sources)})
        else:
            _write_folder(path, pieces, names)
    print(f"wrote {out}")


def _counted(pieces: Iterable[Decoded], progress: "tqdm.tqdm[Any]") -> Iterator[Decoded]:
    """Yield the pieces; advance `progress` by the images of each when the next is requested."""
    for piece in pieces:
        yield piece
        progress.update(len(piece.indices))


def _write_arrays(path: Path, pieces: Iterable[Decoded], count: int, others: dict[str, np.ndarray]) -> None:
    """Write an uncompressed .npz like `np.savez`: append each array to a separate file, then pack the files."""
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}-") as temporary:
        folder, files = Path(temporary), dict[str, BinaryIO]()
        with contextlib.ExitStack() as stack:
            for piece in pieces:
                for field in dataclasses.fields(Decoded):
                    if (values := getattr(piece, field.name)) is None:
                        continue
                    values = np.ascontiguousarray(values)
                    if field.name not in files:
                        files[field.name] = stack.enter_context((folder / f"{field.name}.npy").open("wb"))
                        _write_header(files[field.name], (count, *values.shape[1:]), values.dtype)
                    files[field.name].write(values.data)
        for name, values in others.items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)
        with zipfile.ZipFile(folder / "packed", "w", zipfile.ZIP_STORED) as archive:
            for array in sorted(folder.glob("*.npy")):
                archive.write(array, array.name)
        os.replace(folder / "packed", path)


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def _write_folder(path: Path, pieces: Iterable[Decoded], names: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}-") as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        names = iter(names)
        for piece in pieces:
            for image, name in zip(piece.images, names, strict=False):  # the last piece ends before the names do
                file = folder / f"{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as stream:  # never overwrite another image
                    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, "PNG")
        if path.exists():
            path.rmdir()
        folder.rename(path)
