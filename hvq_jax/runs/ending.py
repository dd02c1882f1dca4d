"""The lines at the end of a run: the metrics that matter, the pictures, and the next command."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hvq_jax import layout
from hvq_jax.command import typed
from hvq_jax.files import as_typed
from hvq_jax.progress import duration
from hvq_jax.runs.summary import read_summary
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.stage import Stage


def section_in_words(section: str, metrics: Mapping[str, Any]) -> str | None:
    """Return what matters most in a section of the summary; None where nothing was measured.

    >>> section_in_words("prior", {"test": {"nats_per_latent": 222.4}})
    '222.4 nats per latent, on the test split'
    """
    return _SECTIONS[section](metrics)


def _stage(stage: type[Stage], metrics: Mapping[str, Any]) -> str:
    return f"{stage.in_words(metrics['test'])}, on the test split"


def _coded(metrics: Mapping[str, Any]) -> str:
    if "test" not in metrics:
        return f"left out: {metrics['left_out']}"
    test = metrics["test"]
    return f"{test['coded_bits_per_image']:.1f} bits per image, in a file of {test['num_images']:.0f} test images"


def _samples(metrics: Mapping[str, Any]) -> str | None:
    if "class_accuracy" not in metrics:
        return None
    return (
        f"{metrics['class_accuracy']:.0%} of the class that was asked for, by a classifier that is right on "
        f"{metrics['classifier_test_accuracy']:.0%} of test images"
    )


# The sections of the summary that are shown, in this order.
_SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    **{stage.name: partial(_stage, stage) for stage in (AutoencoderStage, PriorStage)},
    "coded": _coded,
    "samples": _samples,
}


def ending(workdir: Path, seconds: float, command: str) -> list[str]:
    """Return the lines at the end of a run that took so many seconds; `command` is what to type next."""
    summary: Mapping[str, Any] = read_summary(workdir)
    sections = [name for name in _SECTIONS if name in summary]
    found = {name: text for name in sections if (text := section_in_words(name, summary[name]))}
    pictures = [name for name in layout.PICTURES if (workdir / name).exists()]
    return [
        f"finished in {duration(seconds)}; everything is in {as_typed(workdir)}",
        *(f"  {name:13}{text}" for name, text in found.items()),
        *([f"  {'pictures':13}{', '.join(pictures)}"] if pictures else []),
        f"next: {command}",
    ]


def next_command(workdir: Path, stages: Sequence[str], *, has_images: bool) -> str:
    """Return what to type after a run of these stages, in the way in which this process was started.

    >>> next_command(Path("runs/a"), ["autoencoder", "prior"], has_images=True)
    "hvq_jax.load('runs/a')"
    """
    if PriorStage.name not in stages:
        name, more = "train", " --config.stage=prior"
    else:
        name, more = ("report", "") if has_images else ("sample", " --out=latents.npz")
    command = typed(name)
    return f"hvq_jax.load({str(workdir)!r})" if command is None else f"{command} --workdir={as_typed(workdir)}{more}"
