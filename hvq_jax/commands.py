"""What `sample.py` does: draw from a run, or reconstruct image files, into a picture or an .npz."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageOps

from hvq_jax.data.decode import decode_image
from hvq_jax.errors import UserError
from hvq_jax.evaluation import plots
from hvq_jax.inference import Drawn, TrainedRun
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.sampling import Kept, SamplingOptions, all_codes, top_rows

_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def sample_grid(
    workdir: str,
    out: str,
    *,
    num_samples: int = 64,
    label: str | None = None,
    seed: int = 0,
    **options: Any,
) -> None:
    """Draws `num_samples` images, of one class (`label`: name or number) or of all in turn, and writes `out`.

    `options` are those of `SamplingOptions`.
    """
    _check_out(out)
    _check_drawing(num_samples, seed)
    run = TrainedRun.load(workdir)
    conditional = run.config.prior.conditional
    _check_label(run, label)
    if label is None:
        labels = np.arange(num_samples, dtype=np.int32) % len(run.class_names)
    else:
        labels = np.full(num_samples, _label_number(label, run.class_names), np.int32)
    drawn = _join(run.sample(labels, seed=seed, options=SamplingOptions(**options)))
    if note := run.continuous_part_note():
        print(note)
    captions = [run.class_names[i] for i in labels] if conditional else None
    _write(out, drawn, captions, title=f"{num_samples} samples, {Path(workdir).name}, seed {seed}")


def complete_images(
    workdir: str, path: str, out: str, *, rows: int = 3, num_samples: int = 8, label: str | None = None, **drawing: Any
) -> None:
    """Keeps the top `rows` of the latent of each image, draws the rest `num_samples` times, and writes `out`."""
    run = TrainedRun.load(workdir)
    height = run.model.latent_shape[0]
    if not 0 <= rows <= height:
        raise UserError(f"--rows={rows}: must be from 0 to {height}, the rows of a latent")
    what = f"the first {rows} of {height} rows kept"
    _redraw(run, path, out, partial(top_rows, rows=rows), what, num_samples=num_samples, label=label, **drawing)


def vary_images(
    workdir: str, path: str, out: str, *, num_samples: int = 8, label: str | None = None, **drawing: Any
) -> None:
    """Keeps the codes of each image, draws the continuous parts `num_samples` times, and writes `out`."""
    run = TrainedRun.load(workdir)
    if run.prior.continuous is None:
        raise UserError(
            f"--vary={path}: this run's prior draws codes only (latent {run.model.latent.mode}, "
            f"{run.config.prior.num_bins} bins), so there is nothing to vary"
        )
    _redraw(run, path, out, all_codes, "codes kept", num_samples=num_samples, label=label, **drawing)


def _redraw(
    run: TrainedRun,
    path: str,
    out: str,
    keep: Callable[[jax.Array], Kept],
    what: str,
    *,
    num_samples: int,
    label: str | None,
    seed: int = 0,
    **options: Any,
) -> None:
    """A row for each image: itself, what is transmitted of it, and the draws."""
    _check_out(out)
    _check_drawing(num_samples, seed)
    _check_label(run, label)
    files = _image_files(Path(path))
    images = np.stack([_read_image(file, run.model.image_shape) for file in files])
    number = NO_CLASS if label is None else _label_number(label, run.class_names)
    if run.prior.num_classes and label is None and not run.config.prior.label_dropout:
        raise UserError("this run's prior was always told the class (prior.label_dropout=0): say --label=NAME")
    run.prior_params  # noqa: B018 - says so where there is no prior yet
    tokens, transmitted = (_join(part) for part in zip(*run.transmit(images), strict=True))
    repeated = np.repeat(tokens, num_samples, axis=0)
    labels = np.full(len(repeated), number, np.int32)
    drawn = _join(run.sample(labels, seed=seed, options=SamplingOptions(**options), tokens=repeated, keep=keep))
    if out.endswith(".npz"):
        _write(out, drawn, None, title="", names=[file.name for file in files for _ in range(num_samples)])
        return
    rows = drawn.images.reshape(len(files), num_samples, *images.shape[1:])
    rows = np.concatenate([images[:, None], transmitted.images[:, None], rows], axis=1)
    title = f"original, transmitted, {num_samples} draws: {what}, {Path(run.workdir).name}, seed {seed}"
    plots.save_samples(out, rows, [file.stem for file in files], title=title)
    print(f"wrote {out}")


def _check_label(run: TrainedRun, label: str | None) -> None:
    if label is not None and not run.config.prior.conditional:
        raise UserError("--label: the prior of this run is not conditional on the class")


def _check_drawing(num_samples: int, seed: int) -> None:
    if num_samples < 1:
        raise UserError(f"--num_samples={num_samples}: must be at least 1")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed={seed}: must be from 0 to {2**32 - 1}")


def reconstruct_files(workdir: str, path: str, out: str) -> None:
    """Sends an image or a folder of images through the run's autoencoder and writes `out`."""
    _check_out(out)
    run = TrainedRun.load(workdir)
    files = _image_files(Path(path))
    images = np.stack([_read_image(file, run.model.image_shape) for file in files])
    drawn = _join(run.reconstruct(images))
    if out.endswith(".npz"):
        _write(out, drawn, None, title="", names=[file.name for file in files])
    else:
        title = f"{path} through {Path(workdir).name}"
        plots.save_reconstructions(out, images, drawn.images, title=title)
        print(f"wrote {out}")


def _check_out(out: str) -> None:
    if not out.endswith((".png", ".npz")):
        raise UserError(f"--out={out}: must end in .png or .npz")
    if not os.access(Path(out).absolute().parent, os.W_OK):
        raise UserError(f"--out={out}: the folder does not exist or cannot be written to")


def _label_number(label: str, class_names: tuple[str, ...]) -> int:
    if label in class_names:
        return class_names.index(label)
    if label.removeprefix("-").isdigit() and 0 <= int(label) < len(class_names):
        return int(label)
    raise UserError(
        f"--label={label} is out of range: the classes are "
        + ", ".join(f"{number} {name}" for number, name in enumerate(class_names))
    )


def _image_files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _IMAGE_ENDINGS)
    if not files:
        raise UserError(f"{path}: no {', '.join(_IMAGE_ENDINGS)} file in this folder")
    return files


def _read_image(file: Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    """`[H, W, C]` uint8: the image, converted to grey or RGB, cropped about its centre and resized if it must be."""
    height, width, channels = image_shape
    try:
        converted = decode_image(file, channels)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} cannot be read as an image: {error}") from None
    if converted.size != (width, height):
        print(f"{file.name}: {converted.width}×{converted.height} fitted to {width}×{height}")
        converted = ImageOps.fit(converted, (width, height), Image.Resampling.BICUBIC)
    return np.asarray(converted, np.uint8).reshape(image_shape)


def _join(pieces: Iterable[Any]) -> Any:
    return jax.tree.map(lambda *x: np.concatenate(x), *pieces)


def _write(
    out: str,
    drawn: Drawn,
    captions: list[str] | None,
    *,
    title: str,
    names: list[str] | None = None,
) -> None:
    if out.endswith(".png"):
        plots.save_grid(out, drawn.images, labels=captions, title=title)
    else:
        arrays = {name: getattr(drawn, name) for name in Drawn.__dataclass_fields__}
        if names:
            arrays["names"] = np.array(names)
        temporary = Path(out).with_name(f".{Path(out).name}")
        np.savez(temporary, **arrays)
        os.replace(temporary, out)
    print(f"wrote {out}")
