"""The commands of `sample.py`: draw from a run, or pass image files through it.

Plots are imported where a grid is written: `outputs.write` imports them while the images are computed.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import full_path, printable
from hvq_jax.priors.importance import check_proposals
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.sampling import CodeSamplingOptions, Kept, SamplingOptions, all_codes, top_rows
from hvq_jax.runs.class_labels import class_number, folded, listed
from hvq_jax.runs.image_inputs import ImageInputs
from hvq_jax.runs.outputs import check_out, in_file_name, is_png, unique_stems, write
from hvq_jax.runs.results import Decoded, Latents
from hvq_jax.runs.stored_codes import AUTOENCODER
from hvq_jax.runs.trained import TrainedRun

_MOST_SAMPLES = 10**8  # their labels are in memory


def draw_samples(
    workdir: str,
    out: str,
    *,
    num_samples: int = 64,
    label: str | None = None,
    seed: int = 0,
    **options: Any,
) -> None:
    """Draw `num_samples` images, of one class (`label`: name or number) or of all in turn, and write `out`.

    `options` are those of `SamplingOptions`. Images in a folder are named by their number and the name of their class.
    """
    _check_drawing(num_samples, seed)
    check_out(out, num_samples, workdir=workdir)
    run = TrainedRun.load(workdir)
    conditional = run.options.prior.conditional
    _check_label(run, label)
    if run.image_shape is None and not out.endswith(".npz"):
        raise UserError(f"--out={out}: this run has no autoencoder to make images of its latents: choose an .npz")
    if label is None:
        labels = np.arange(num_samples, dtype=np.int32) % max(len(run.class_names), 1)
    else:
        labels = np.full(num_samples, _label_number(label, run.class_names), np.int32)
    pieces: Iterable[Decoded | Latents]
    with _flags_named():
        draw = run.sample if run.image_shape else run.sample_latents
        pieces = draw(labels, seed=seed, options=SamplingOptions(**options))
    if note := run.continuous_part_note():
        print(note)

    def save_png(images: np.ndarray) -> None:
        from hvq_jax.evaluation import plots

        captions = [run.class_names[i] for i in labels] if conditional else None
        of_class = "" if label is None else f" of {run.class_names[labels[0]]}"
        title = f"{num_samples} samples{of_class}, {Path(workdir).name}, {_described(seed, options)}"
        plots.save_grid(full_path(out), images, labels=captions, title=title)

    of_class = [f"-class_{in_file_name(name)}" for name in run.class_names]
    stems = (f"{i:06d}{of_class[labels[i]] if conditional else ''}" for i in range(num_samples))
    write(out, pieces, num_samples, stems=stems, save_png=save_png, arrays=arrays_of(run, labels))


def complete_images(
    workdir: str, path: str, out: str, *, rows: int = 3, num_samples: int = 8, label: str | None = None, **drawing: Any
) -> None:
    """Keep the top `rows` of the latent of each image, draw the rest `num_samples` times, and write `out`."""
    run = TrainedRun.load(workdir)
    height = run.latent_shape[0]
    if not 0 <= rows <= height:
        raise UserError(f"--rows={rows}: must be from 0 to {height}, the rows of a latent")
    what = f"top {rows} of {height} rows kept"
    drawing |= {"num_samples": num_samples, "label": label, "kept": rows / height}
    _redraw(run, path, out, partial(top_rows, rows=rows), what, **drawing)


def vary_images(
    workdir: str,
    path: str,
    out: str,
    *,
    num_samples: int = 8,
    label: str | None = None,
    proposals: int = 1,
    **drawing: Any,
) -> None:
    """Keep the codes of each image, draw the continuous parts `num_samples` times, and write `out`.

    With `proposals=1`, each is drawn as in sampling, given its code and what is before it, with the codes forced. With
    more, a draw is chosen from so many by the probability of the codes, which tends to p(continuous parts | all codes),
    as the codes after a part also say something about it (see `priors/importance.py`).
    """
    for name in sorted({field.name for field in dataclasses.fields(CodeSamplingOptions)} & set(drawing)):
        raise UserError(f"--{name} applies to codes, which --vary keeps: omit one of them")
    run = TrainedRun.load(workdir)
    if not run.prior.heads:
        raise UserError(f"--vary={path}: this run's prior {run.draws_codes_only}, so there is nothing to vary")
    with _flags_named():
        check_proposals(proposals)
    how = "with the codes forced" if proposals == 1 else f"given all codes, each from {proposals} proposals"
    _redraw(
        run,
        path,
        out,
        all_codes,
        f"continuous parts drawn {how}",
        num_samples=num_samples,
        label=label,
        proposals=proposals,
        **drawing,
    )


def _redraw(
    run: TrainedRun,
    path: str,
    out: str,
    keep: Callable[[jax.Array], Kept],
    what: str,
    *,
    num_samples: int,
    label: str | None,
    kept: float = 0.0,
    seed: int = 0,
    proposals: int = 1,
    **options: Any,
) -> None:
    """Write the draws of each image; a .png has one row per image: itself, as transmitted, and its draws."""
    _check_drawing(num_samples, seed)
    _check_label(run, label)
    inputs = ImageInputs.find(path)
    of_images = labels_of_images(run, inputs, label)
    check_out(out, len(inputs) * (num_samples + 2), workdir=str(run.workdir), inputs=inputs.files)
    images: Iterable[np.ndarray] = inputs.read(run.model.image_shape)
    if is_png(out):
        images = list(images)
    transmitted: list[np.ndarray] = []  # for a .png

    def repeated() -> Iterator[np.ndarray]:
        for tokens, drawn in run.transmit(images):
            if is_png(out):
                transmitted.extend(drawn.images)
            yield from (latent for latent in tokens for _ in range(num_samples))

    labels = np.repeat(of_images, num_samples)
    with _flags_named():
        drawing = SamplingOptions(**options)
        pieces = run.sample(labels, seed=seed, options=drawing, tokens=repeated(), keep=keep, proposals=proposals)
    effective: list[np.ndarray] = []

    def counted() -> Iterator[Decoded]:
        for piece in pieces:
            if piece.effective_proposals is not None:
                effective.append(piece.effective_proposals)
            yield piece

    def save_png(drawn: np.ndarray) -> None:
        from hvq_jax.evaluation import plots

        draws = drawn.reshape(len(inputs), num_samples, *drawn.shape[1:])
        rows = np.concatenate([np.stack(list(images))[:, None], np.stack(transmitted)[:, None], draws], axis=1)
        classes = [f" ({run.class_names[number]})" if number != NO_CLASS else "" for number in of_images]
        row_names = [f"{Path(name).stem}{of_class}" for name, of_class in zip(inputs.names, classes, strict=True)]
        plots.save_samples(
            full_path(out),
            rows,
            row_names,
            title=f"{Path(run.workdir).name}: {what}, {_described(seed, options)}",
            column_names=["original", "transmitted", f"{num_samples} draws{' (bar: kept)' if kept else ''}"],
            kept=kept,
        )

    stems = unique_stems(f"{stem}-{i:02d}" for stem in inputs.stems for i in range(num_samples))
    arrays = {"names": np.repeat(inputs.names, num_samples), **arrays_of(run, labels)}
    write(out, counted(), len(labels), stems=stems, save_png=save_png, arrays=arrays)
    if effective:
        found = np.concatenate(effective)
        print(
            f"effective number of the {proposals} proposals: {found.mean():.1f} on average, at least {found.min():.1f}"
        )


@contextlib.contextmanager
def _flags_named() -> Iterator[None]:
    """Name flags instead of options of drawing in errors that are raised in the block."""
    try:
        yield
    except ArgumentError as error:
        is_flag = error.name in {"label", "proposals", *(field.name for field in dataclasses.fields(SamplingOptions))}
        raise (error.within("--") if is_flag else error) from None


def arrays_of(run: TrainedRun, labels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return what an .npz says about the run and, if they are drawn with `labels` by its prior, the classes."""
    arrays = {AUTOENCODER: np.array(run.autoencoder_digest)} if run.image_shape else {}
    return arrays if labels is None else {**arrays, **_label_arrays(run, labels)}


def _label_arrays(run: TrainedRun, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return what an .npz says about the classes of images drawn with `labels`, nothing by an unconditional prior."""
    if not run.options.prior.conditional:
        return {}
    return {"labels": labels, "class_names": np.array(run.class_names)}


def labels_of_images(run: TrainedRun, inputs: ImageInputs, label: str | None) -> np.ndarray:
    """Return the class `[N]` int32 of each image: `label`, or that of the folder it is in, or none."""
    if label is not None:
        return np.full(len(inputs), _label_number(label, run.class_names), np.int32)
    numbers = {folded(name): number for number, name in enumerate(run.class_names)}
    if not run.options.prior.conditional:
        numbers = {}
    found = np.array(
        [numbers.get(folded((inputs.root / path).parent.name), NO_CLASS) for path in inputs.paths], np.int32
    )
    if run.prior.num_classes and not run.options.prior.label_dropout and (found == NO_CLASS).any():
        raise UserError(
            "this run's prior always saw the class in training (prior.label_dropout=0): name one with --label=NAME, or "
            "put the images into folders with the names of classes"
        )
    return found


def _described(seed: int, options: dict[str, Any]) -> str:
    """Return the settings of drawing for a title: what was given, and the seed."""
    return ", ".join([*(f"{name.replace('_', ' ')} {value:g}" for name, value in options.items()), f"seed {seed}"])


def _check_label(run: TrainedRun, label: str | None) -> None:
    if label is not None and not run.options.prior.conditional:
        raise UserError("--label: the prior of this run is not conditional on the class")


def _check_drawing(num_samples: int, seed: int) -> None:
    if not 1 <= num_samples <= _MOST_SAMPLES:
        raise UserError(f"--num_samples={num_samples}: must be from 1 to {_MOST_SAMPLES}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed={seed}: must be from 0 to {2**32 - 1}")


def reconstruct_files(workdir: str, path: str, out: str) -> None:
    """Pass an image or a folder of images through the run's autoencoder and write `out`."""
    inputs = ImageInputs.find(path)
    check_out(out, 2 * len(inputs), workdir=workdir, inputs=inputs.files)
    run = TrainedRun.load(workdir)
    images: Iterable[np.ndarray] = inputs.read(run.model.image_shape)
    if is_png(out):
        images = list(images)

    def save_png(drawn: np.ndarray) -> None:
        from hvq_jax.evaluation import plots

        title = f"{printable(path)} through {Path(workdir).name}"
        plots.save_reconstructions(full_path(out), np.stack(list(images)), drawn, title=title)

    arrays = {"names": np.array(inputs.names), **arrays_of(run)}
    stems = unique_stems(inputs.stems)
    write(out, run.reconstruct(images), len(inputs), stems=stems, save_png=save_png, arrays=arrays)


def _label_number(label: str, class_names: tuple[str, ...]) -> int:
    """Return the number of the class `label`: its name, in any letter case if that is unambiguous, or its number."""
    if (number := class_number(label, class_names)) is not None:
        return number
    if re.fullmatch("[0-9]{1,9}", label) and int(label) < len(class_names):
        return int(label)
    raise UserError(f"--label={label} is out of range: the classes are {listed(class_names)}")
