"""Where images go that were drawn or reconstructed: a picture, an .npz with their latents, or a folder of PNGs.

Pieces are written as they come: an .npz and a folder take no more memory for a million images than for a hundred. What
is there already is replaced, or a folder made, only when all of it is written.
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
from hvq_jax.inference import Drawn
from hvq_jax.progress import progress_bar

_MOST_IN_A_PICTURE = 1024


def is_picture(out: str) -> bool:
    """Whether all images go into one .png, which needs them all at once."""
    return Path(out).suffix == ".png"


def check_out(out: str, count: int) -> None:
    """UserError where `count` images cannot go: before anything is computed."""
    path = Path(out)
    if path.suffix not in (".png", ".npz", ""):
        raise UserError(f"--out={out}: must end in .png or .npz, or be a folder, without an ending")
    if is_picture(out) and count > _MOST_IN_A_PICTURE:
        raise UserError(
            f"--out={out}: {count} images are too many for a picture (at most {_MOST_IN_A_PICTURE}): name a folder or "
            "an .npz"
        )
    if not path.suffix and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--out={out}: is there already and not an empty folder: name another")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"--out={out}: the folder does not exist or cannot be written to")


def write(
    out: str,
    pieces: Iterable[Drawn],
    count: int,
    *,
    names: Iterable[str],
    picture: Callable[[np.ndarray], None],
    sources: list[str] | None = None,
) -> None:
    """Writes `count` images, and says so; a bar shows how far it is.

    `names` are those of the files in a folder, without their ending; `picture` makes the .png of all images
    `[N, H, W, C]` uint8; `sources` go into an .npz as `names`.
    """
    path = Path(out)
    with progress_bar(total=count, desc="Images", unit=" images", disable=None) as progress:  # on a terminal
        pieces = _counted(pieces, progress)
        if is_picture(out):
            picture(np.concatenate([piece.images for piece in pieces]))
        elif path.suffix:
            _write_arrays(path, pieces, count, {} if sources is None else {"names": np.array(sources)})
        else:
            _write_folder(path, pieces, names)
    print(f"wrote {out}")


def _counted(pieces: Iterable[Drawn], progress: "tqdm.tqdm[Any]") -> Iterator[Drawn]:
    """Yield the pieces; count their images as they come back."""
    for piece in pieces:
        yield piece
        progress.update(len(piece.indices))


def _write_arrays(path: Path, pieces: Iterable[Drawn], count: int, others: dict[str, np.ndarray]) -> None:
    """An uncompressed .npz as of `np.savez`. Each array grows in a file of its own, then they are packed."""
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}-") as temporary:
        folder, files = Path(temporary), dict[str, BinaryIO]()
        with contextlib.ExitStack() as stack:
            for piece in pieces:
                for field in dataclasses.fields(Drawn):
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


def _write_folder(path: Path, pieces: Iterable[Drawn], names: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}-") as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        names = iter(names)
        for piece in pieces:
            for image, name in zip(piece.images, names, strict=False):  # the last piece ends before the names
                file = folder / f"{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as stream:  # never one over another
                    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, "PNG")
        if path.exists():
            path.rmdir()
        folder.rename(path)
