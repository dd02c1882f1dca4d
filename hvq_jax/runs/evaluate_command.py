"""The command `evaluate.py`: all metrics of a trained run on given images, as a table and as JSON."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hvq_jax.codec import range_coder
from hvq_jax.data.held_out import SPLITS
from hvq_jax.errors import UserError
from hvq_jax.files import full_path, write_json
from hvq_jax.layout import LATENTS
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.progress import progress_bar
from hvq_jax.runs.batching import BATCH, Images
from hvq_jax.runs.coded_evaluation import evaluate_coded
from hvq_jax.runs.compress_files import flags_named
from hvq_jax.runs.compression import RunCodec
from hvq_jax.runs.compression_inputs import Source, find_source
from hvq_jax.runs.evaluation import evaluate
from hvq_jax.runs.outputs import check_out
from hvq_jax.runs.static_rate import static_bits_of_codes
from hvq_jax.runs.trained import TrainedRun

ENDING = ".json"


def evaluate_run(
    workdir: str,
    out: str | None = None,
    *,
    path: str | None = None,
    split: str = "test",
    num_images: int | None = None,
    label: str | None = None,
    labels: bool = True,
    portable: bool = False,
) -> None:
    """Print the metrics of a run, and write them to `out`, a .json.

    Args:
        workdir: of the run.
        out: the file to write, if any.
        path: an image, a folder of images, or an .npz; None: those of a split.
        split: train, validation or test.
        num_images: of the split, evenly spaced; None: all.
        label: class of all images, name or number.
        labels: whether the prior is given the classes of the images, and the file tells them.
        portable: measure a portable file.
    """
    if out is not None:
        _check_out(out, workdir)
    run = TrainedRun.load(workdir)
    with flags_named():
        source = find_source(run, path, split, most=num_images, label=label, labels=labels)
        if out is not None:
            check_out(out, 1, workdir=workdir, endings=(ENDING,), inputs=source.files)
        metrics = measure(run, source, portable=portable)
    result = {
        "workdir": str(run.workdir),
        "images": path or split,
        "portable": portable,
        "latent": run.options.latent.mode,
        "autoencoder_step": run.autoencoder_step,
        "prior": run.options.prior.name if run.has_prior else None,
        "prior_step": run.steps["step"] if run.has_prior else None,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "metrics": metrics,
    }
    print(table(result))
    if out is not None:
        write_json(full_path(out), result)
        print(f"wrote {out}")


def _check_out(out: str, workdir: str) -> None:
    if Path(out).suffix != ENDING:
        raise UserError(f"--out={out}: must end in {ENDING}")
    check_out(out, 1, workdir=workdir, endings=(ENDING,))


def measure(run: TrainedRun, source: Source, *, portable: bool) -> dict[str, float]:
    """Return what `evaluate`, `evaluate_coded` and `static_bits_of_codes` do, as far as there is what they need.

    That is a prior for all bits, the package `constriction` for a file, and `latents.npz` for frequencies.
    """
    coded = run.has_prior and range_coder.is_installed()
    has_frequencies = run.has_prior and (run.workdir / LATENTS).exists()
    if run.has_prior:
        run.made_once(RunCodec, with_labels=source.labels is not None, portable=portable)  # checks the labels
        if not coded:
            print(f"coded: left out, since {range_coder.NEEDED}")
    else:
        print(f"bits: left out, since {run.workdir} has no prior")
    labels = source.labels if source.labels is not None else np.full(len(source), NO_CLASS, np.int32)
    total = (1 + run.has_prior + has_frequencies + 2 * coded) * len(source) + coded * min(BATCH, len(source))
    with progress_bar(total=total, desc="Images", unit=" images") as progress:
        images = _Counted(source, progress.update)
        metrics = {"num_images": len(source), **evaluate(run, images, labels if run.has_prior else None)}
        if has_frequencies:
            metrics["static_bits_of_codes"] = static_bits_of_codes(run, images, source.labels)
        if coded:
            metrics |= evaluate_coded(run, images, source.labels, portable=portable, timed=True)
    return metrics


@dataclasses.dataclass(frozen=True)
class _Counted:
    """Images that are counted whenever they are read."""

    images: Images
    count: Callable[[], Any]

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[np.ndarray]:
        for image in self.images:
            yield image
            self.count()


def table(result: dict[str, Any]) -> str:
    """Return the main metrics of a result of `evaluate_run` as a text of several lines."""
    found = result["metrics"]
    prior = f" and {result['prior']}" if result["prior"] else ""
    where = f"the {result['images']} split" if result["images"] in SPLITS else result["images"]
    lines = [
        f"{result['workdir']}: {result['latent']}{prior}, {found['num_images']:,} images of {where}; "
        f"{result['device']}, JAX {result['jax']}"
    ]
    if "bits_per_image" in found:
        lines += ["", f"{'':26}{'bits per image':>14}"]
        lines += [f"{name:26}{bits:14.2f}{note}" for name, bits, note in _rates(found)]
    lines += ["", f"{'':26}{'MSE':>10}{'PSNR, dB':>10}{'SSIM':>10}"]
    for prefix, name in (("coded_", "from the file"), ("", "reconstructed, not rounded")):
        if f"{prefix}mse" in found:
            mse, psnr, ssim = (found[prefix + metric] for metric in ("mse", "psnr", "ssim"))
            lines.append(f"{name:26}{mse:10.5f}{psnr:10.2f}{ssim:10.4f}")
    if "compress_ms_per_image" in found:
        there, back = found["compress_ms_per_image"], found["decompress_ms_per_image"]
        lines += ["", f"{there:.2f} ms per image to compress and verify, {back:.2f} ms to decompress"]
    return "\n".join(lines)


def _rates(found: dict[str, float]) -> Iterator[tuple[str, float, str]]:
    """Yield the name, the bits per image and a note of each rate."""
    parts = ", ".join(
        f"{part} {found[f'nats_of_{part}'] / found['nats_per_latent'] * found['bits_per_image']:.2f}"
        for part in ("codes", "continuous")
        if f"nats_of_{part}" in found
    )
    yield "by the prior", found["bits_per_image"], f"  ({parts})" if parts else ""
    if "static_bits_of_codes" in found:
        yield "of codes, by frequency", found["static_bits_of_codes"], ""
    if "coded_bytes" in found:
        labels = found["label_bits_per_image"]
        if labels:
            yield "of the label", labels, ""
        note = f"  ({found['coded_bytes']:,} bytes; {found['coded_ratio']:.4f} times the prior's"
        yield "in the file", found["coded_bits_per_image"], note + (" and the label's)" if labels else ")")
