"""The commands of `compress.py`: files of images to .hvq files, and back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hvq_jax.codec.file_format import Reader
from hvq_jax.data.decode import as_image
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import full_path, open_regular, printable, whole_file, whole_folder
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.progress import progress_bar
from hvq_jax.runs.compression import RunCodec, check_header, decompressed, file_size
from hvq_jax.runs.compression_inputs import Source, find_source
from hvq_jax.runs.outputs import check_out, is_png, unique_stems, write
from hvq_jax.runs.results import Decoded
from hvq_jax.runs.sample_command import arrays_of
from hvq_jax.runs.trained import TrainedRun

ENDING = ".hvq"


def compress_images(
    workdir: str,
    out: str,
    *,
    path: str | None = None,
    split: str | None = None,
    label: str | None = None,
    labels: bool = True,
    portable: bool = False,
    bare: bool = False,
) -> None:
    """Write the images of `path` or of a split to `out`, an .hvq file or a folder of one file per image.

    Args:
        workdir: of the run.
        out: a path that ends in .hvq, or a folder.
        path: an image, a folder of images, or an .npz.
        split: train, validation or test.
        label: class of all images, name or number.
        labels: whether the classes of the images are part of the file.
        portable: make files that can be read on other machines.
        bare: write streams only, to be measured.
    """
    check_out(out, 1, workdir=workdir, endings=(ENDING,))
    run = TrainedRun.load(workdir)
    with flags_named():
        source = find_source(run, path, split or "test", label=label, labels=labels)
        check_out(out, 1, workdir=workdir, endings=(ENDING,), inputs=source.files)
        codec = RunCodec(run, with_labels=source.labels is not None, portable=portable)
        given = np.full(source.count, NO_CLASS, np.int32) if source.labels is None else source.labels
        with progress_bar(total=source.count, desc="Images", unit=" images") as progress:
            pieces = _counted(codec.tokens_of(source.read()), progress)
            save = _write_file if Path(out).suffix else _write_folder
            num_bytes = save(full_path(out), codec, pieces, given, source, bare)
    per_image = 8 * num_bytes / source.count
    print(f"wrote {out}: {source.count:,} images in {num_bytes:,} bytes, {per_image:.2f} bits per image")


def _counted(pieces: Iterator[np.ndarray], progress: Any) -> Iterator[np.ndarray]:
    for piece in pieces:
        yield piece
        progress.update(len(piece))


def _write_file(
    path: Path, codec: RunCodec, pieces: Iterator[np.ndarray], labels: np.ndarray, source: Source, bare: bool
) -> int:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        return sum(file.write(part) for part in codec.compressed(pieces, labels, bare=bare))


def _write_folder(
    path: Path, codec: RunCodec, pieces: Iterator[np.ndarray], labels: np.ndarray, source: Source, bare: bool
) -> int:
    latents = (latent for piece in pieces for latent in piece)
    num_bytes = 0
    with whole_folder(path) as folder:
        for latent, label, stem in zip(latents, labels, unique_stems(source.stems), strict=True):
            file = folder / f"{stem}{ENDING}"
            file.parent.mkdir(parents=True, exist_ok=True)
            parts = codec.compressed([latent[None]], label[None], bare=bare)
            with file.open("xb") as stream:
                num_bytes += sum(stream.write(part) for part in parts)
    return num_bytes


def decompress_files(workdir: str, path: str, out: str) -> None:
    """Write the images of an .hvq file, or of all in a folder, to `out`: a .png (of one image), an .npz or a folder."""
    files = _find(path)
    run = TrainedRun.load(workdir)
    counts = [_header(file, run).count for file in files]
    total = sum(counts)
    check_out(out, total, workdir=workdir, inputs=files)
    if is_png(out) and total > 1:
        raise UserError(f"--out={out}: {total:,} images do not go into one .png: choose a folder or an .npz")
    arrays: dict[str, np.ndarray] = {}  # those that are known at the end, when they are written

    def pieces() -> Iterator[Decoded]:
        labels = []
        for file in files:
            with _errors_of(file), open_regular(file) as stream:
                for piece in decompressed(run, stream, file_size(stream)):
                    labels.append(piece.labels)
                    yield Decoded(piece.indices, piece.images, piece.gains, piece.latents)
        arrays.update(arrays_of(run, np.concatenate(labels)))

    root = full_path(path) if full_path(path).is_dir() else full_path(path).parent
    stems = (
        str(file.relative_to(root).with_suffix("")) + (f"-{number:06d}" if count > 1 else "")
        for file, count in zip(files, counts, strict=True)
        for number in range(count)
    )
    write(out, pieces(), total, stems=stems, save_png=lambda images: _save_image(out, images[0]), arrays=arrays)


def _save_image(out: str, image: np.ndarray) -> None:
    with whole_file(full_path(out)) as temporary, temporary.open("wb") as stream:
        as_image(image).save(stream, "PNG")


def describe_file(path: str, workdir: str | None) -> None:
    """Print what an .hvq file holds and, given a run, whether it can be read with it here."""
    file = full_path(path)
    header = _header(file, None)
    size = file.stat().st_size
    print(f"{path}: {header.count:,} images in {size:,} bytes, {8 * size / header.count:.2f} bits per image")
    print(f"  labels: {'yes' if header.with_labels else 'no'}")
    print(f"  portable: {'yes' if header.portable else 'no, for the environment that wrote it'}")
    print(f"  run: {header.fingerprint.hex()}")
    if workdir is not None:
        try:
            check_header(TrainedRun.load(workdir), header)
            print(f"  can be read with {workdir} here")
        except UserError as error:
            print(f"  cannot be read with {workdir} here: it {error}")


def _find(path: str) -> list[Path]:
    """Return the .hvq file, or all below a folder."""
    given = full_path(path)
    if not given.is_dir():
        return [given]
    files = sorted(file for file in given.rglob(f"*{ENDING}") if file.is_file())
    if not files:
        raise UserError(f"{printable(path)}: no {ENDING} file in this folder")
    return files


def _header(file: Path, run: TrainedRun | None) -> Any:
    with _errors_of(file), open_regular(file) as stream:
        header = Reader(stream, file_size(stream)).header
        if run is not None:
            check_header(run, header)
        return header


@contextlib.contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    """Name the file in errors of the block."""
    try:
        yield
    except ArgumentError:
        raise
    except UserError as error:
        raise UserError(f"{printable(file)} {error}") from None
    except OSError as error:
        raise UserError(f"{printable(file)} cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def flags_named() -> Iterator[None]:
    """Name flags instead of arguments in errors of the block."""
    try:
        yield
    except ArgumentError as error:
        raise (error.within("--") if error.name in ("label", "labels") else error) from None
