"""Output of drawn or reconstructed images: a single .png, an .npz with their latents, or a folder of PNGs.

Pieces are written as they arrive, so an .npz or a folder takes no more memory for a million images than for a hundred.
An existing file is replaced, or a folder created, only once everything is written.
"""

import collections
import concurrent.futures
import contextlib
import importlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
import tqdm

from hvq_jax import layout
from hvq_jax.data.decode import as_image
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import check_writable, full_path, whole_file, whole_folder
from hvq_jax.progress import progress_bar

_MOST_IN_ONE_PNG = 1024
_PLOTS = "hvq_jax.evaluation.plots"  # what saves a grid
_COPIED_BYTES = 2**20  # at a time
_MOST_NAME_BYTES = 240  # a name may have 255, with .png and a number


def is_png(out: str) -> bool:
    """Return whether all images go into one .png, which needs them all at once."""
    return Path(out).suffix == ".png"


def check_out(
    out: str,
    count: int,
    *,
    workdir: str,
    inputs: Iterable[Path] = (),
    endings: tuple[str, ...] = (".png", ".npz"),
) -> None:
    """Raise UserError if `count` images cannot be written to `out`; call it before computing anything.

    Nor may they replace a file of the run in `workdir` or one of the `inputs`, the files that they are made from.
    """
    path = full_path(out)
    if path.suffix not in (*endings, ""):
        raise UserError(f"--out={out}: must end in {' or '.join(endings)}, or be a folder name without an extension")
    if is_png(out) and count > _MOST_IN_ONE_PNG:
        raise UserError(
            f"--out={out}: {count} images are too many for one .png (at most {_MOST_IN_ONE_PNG}): choose a folder or "
            "an .npz"
        )
    if not path.parent.is_dir():
        raise UserError(f"--out={out}: {_NO_PARENT}")
    check_writable(path)
    place = path.parent.resolve() / path.name
    if _is_of_run(place, workdir):
        raise UserError(f"--out={out}: {_OF_RUN}")
    if path.suffix and path.is_dir():
        raise UserError(f"--out={out}: is a folder; choose another name")
    if not path.suffix and _is_taken(path):
        raise UserError(f"--out={out}: {_TAKEN}")
    if path.exists() and place in {file.resolve() for file in inputs}:
        raise UserError(f"--out={out}: would replace one of the given images; choose another name")


def check_new_folder(folder: str, *, workdir: Path) -> None:
    """Raise ArgumentError if `folder` is not new or empty, has no place, or would be among the files of a run."""
    path = full_path(folder)
    if not path.parent.is_dir():
        raise ArgumentError(f"folder={folder}", _NO_PARENT)
    check_writable(path)
    if _is_of_run(path.parent.resolve() / path.name, str(workdir)):
        raise ArgumentError(f"folder={folder}", _OF_RUN)
    if _is_taken(path):
        raise ArgumentError(f"folder={folder}", _TAKEN)


_NO_PARENT = "the folder does not exist; create it first"
_OF_RUN = "would replace what belongs to the run; choose another name"
_TAKEN = "already exists and is not an empty folder; choose another name"


def _is_of_run(place: Path, workdir: str) -> bool:
    run = full_path(workdir).resolve()
    return place.is_relative_to(run) and place.relative_to(run).parts[:1] in {(name,) for name in layout.NAMES}


def _is_taken(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def in_file_name(text: str) -> str:
    """Return `text` with everything replaced that may not be in a file name, and of a length that may.

    >>> in_file_name("T-shirt/top"), in_file_name("Ankle boot")
    ('T-shirt_top', 'Ankle_boot')
    """
    return _shortened(re.sub(r"[^\w.+-]+", "_", text), _MOST_NAME_BYTES // 2)


def unique_stems(stems: Iterable[str]) -> list[str]:
    """Return paths without ".png" as they are, or with a number appended where two images would be one file.

    >>> unique_stems(["a", "a", "b/c"])
    ['a', 'a-2', 'b/c']
    """
    given = ["/".join(_shortened(part, _MOST_NAME_BYTES) for part in stem.split("/")) for stem in stems]
    taken = {str(folder) for stem in given for folder in PurePath(stem).parents}  # a folder may end in .png
    numbers: collections.Counter[str] = collections.Counter()
    unique = []
    for stem in given:
        candidate = stem
        while f"{candidate}.png" in taken:
            numbers[stem] += 1
            candidate = f"{stem}-{numbers[stem] + 1}"
        taken.add(f"{candidate}.png")
        unique.append(candidate)
    return unique


def _shortened(name: str, num_bytes: int) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= num_bytes else encoded[:num_bytes].decode(errors="ignore")


def write(
    out: str,
    pieces: Iterable[Any],
    count: int,
    *,
    stems: Iterable[str],
    save_png: Callable[[np.ndarray], None],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write `count` images, showing a progress bar, and print the name of the output.

    Args:
        out: a path that ends in .png or .npz, or a folder.
        pieces: dataclasses of arrays, such as `Decoded`; their arrays that are not None go into an .npz.
        count: number of images.
        stems: paths of the images in a folder, without ".png", all different.
        save_png: function that writes the .png of all images `[N, H, W, C]` uint8.
        arrays: what an .npz holds besides images and latents.
    """
    path = full_path(out)
    with progress_bar(total=count, desc="Images", unit=" images") as progress:  # on a terminal
        pieces = _counted(pieces, progress)
        if is_png(out):
            with concurrent.futures.ThreadPoolExecutor(1) as executor:
                executor.submit(importlib.import_module, _PLOTS)  # takes as long as the computation of a few images
                images = np.concatenate([piece.images for piece in pieces])
            save_png(images)
        elif path.suffix:
            _write_arrays(path, pieces, count, arrays)
        else:
            _write_folder(path, pieces, stems)
    print(f"wrote {out}")


def _counted(pieces: Iterable[Any], progress: "tqdm.tqdm[Any]") -> Iterator[Any]:
    """Yield the pieces; advance `progress` by the images of each when the next is requested."""
    for piece in pieces:
        yield piece
        progress.update(len(next(iter(vars(piece).values()))))


def _write_arrays(path: Path, pieces: Iterable[Any], count: int, others: Mapping[str, np.ndarray]) -> None:
    """Write an uncompressed .npz like `np.savez`: append each array to a separate file, then pack the files.

    These have no names, so that nothing remains of them even if the process is killed.
    """
    with whole_file(path) as unfinished, contextlib.ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}

        def new_file(name: str) -> IO[bytes]:
            files[name] = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
            return files[name]

        for piece in pieces:
            for name, values in vars(piece).items():
                if values is None:
                    continue
                values = np.ascontiguousarray(values)
                if name not in files:
                    _write_header(new_file(name), (count, *values.shape[1:]), values.dtype)
                files[name].write(values.data)
        for name, values in others.items():
            np.save(new_file(name), values, allow_pickle=False)
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for name, file in sorted(files.items()):
                file.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    shutil.copyfileobj(file, member, _COPIED_BYTES)


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def _write_folder(path: Path, pieces: Iterable[Any], stems: Iterable[str]) -> None:
    with whole_folder(path) as folder:
        stems = iter(stems)
        for piece in pieces:
            for image, stem in zip(piece.images, stems, strict=False):  # the last piece ends before the stems do
                file = folder / f"{stem}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as stream:  # never overwrite another image
                    as_image(image).save(stream, "PNG")
