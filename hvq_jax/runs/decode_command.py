"""`sample.py --decode`: images of codes that are stored in an .npz."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hvq_jax.files import full_path, printable
from hvq_jax.runs.batching import stacks
from hvq_jax.runs.outputs import check_out, in_file_name, unique_stems, write
from hvq_jax.runs.results import Decoded, DecodedLatents
from hvq_jax.runs.stored_codes import AUTOENCODER, StoredCodes, read_codes
from hvq_jax.runs.trained import TrainedRun


def decode_file(workdir: str, path: str, out: str) -> None:
    """Decode the latents in the .npz `path` and write `out`.

    What the decoder sees is the array `latents` if there is one, and else each code times its gain (1 if there are
    none), plus its residual. The images are those that `sample.py` wrote with them, except that of a million values a
    few may be rounded to the next grey level, because the decoder is part of another program (see `programs.py`).
    """
    file = full_path(path)
    check_out(out, 1, workdir=workdir, inputs=[file])  # before the file is read
    run = TrainedRun.load(workdir)
    _ = run.model  # a clear error if there is no autoencoder
    stored = read_codes(file, run)
    check_out(out, len(stored), workdir=workdir, inputs=[file])
    if stored.missing:
        print(f"{printable(path)}: no {' and no '.join(stored.missing)}, so the decoder sees the plain codes")
    captions = _captions(stored)

    def save_png(images: np.ndarray) -> None:
        from hvq_jax.evaluation import plots

        title = f"{printable(Path(path).name)}, decoded by {run.workdir.name}"
        plots.save_grid(full_path(out), images, labels=captions, title=title)

    numbers = (f"{i:06d}" for i in range(len(stored)))
    stems = numbers if captions is None else (in_file_name(caption.removesuffix(".png")) for caption in captions)
    arrays = {**stored.others, AUTOENCODER: np.array(run.autoencoder_digest)}
    write(out, decoded(run, stored), len(stored), stems=unique_stems(stems), save_png=save_png, arrays=arrays)


def _captions(stored: StoredCodes) -> list[str] | None:
    """Return the name of each image, if the file has them."""
    return [str(name) for name in stored.others["names"]] if "names" in stored.others else None


def decoded(run: TrainedRun, stored: StoredCodes) -> Iterator[Decoded | DecodedLatents]:
    """Yield the images of stored latents, in pieces."""
    if stored.latents is None:
        assert stored.codes is not None
        yield from run.decode_codes(*stored.codes)
        return
    latents = stacks(stored.latents)
    codes = None if stored.codes is None else zip(*map(stacks, stored.codes[:2]), strict=True)
    for images in run.decode(stored.latents):
        if codes is None:
            yield DecodedLatents(images, next(latents))
        else:
            indices, gains = next(codes)
            yield Decoded(indices, images, gains, next(latents))
