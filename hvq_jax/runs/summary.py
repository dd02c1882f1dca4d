"""The summary of a run, `summary.json`: the metrics of each stage on the test split, of a file, and of the samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from hvq_jax.files import MADE_AGAIN, read_json, write_json
from hvq_jax.layout import SUMMARY
from hvq_jax.schema import Count, Keys


class AutoencoderSummary(TypedDict):
    """The first stage: the step of its best checkpoint, and the metrics of that."""

    step: Count
    test: Annotated[dict[str, float], Keys(("mse", "commitment", "projection"))]
    damaged_best_step: NotRequired[Count]


class PriorSummary(TypedDict):
    """The second stage, trained on the latents of the autoencoder of `autoencoder_step`, 0 without one."""

    step: Count
    autoencoder_step: Count
    test: Annotated[dict[str, float], Keys(("nats_per_latent",))]
    damaged_best_step: NotRequired[Count]


class CodedSummary(TypedDict):
    """The test images as an .hvq file, by these stages: what `evaluate_coded` returns of `most_images` at most.

    `left_out` is the reason if they cannot be coded.
    """

    step: Count
    autoencoder_step: Count
    most_images: Count
    test: NotRequired[Annotated[dict[str, float], Keys(("coded_bits_per_image",))]]
    left_out: NotRequired[str]


class Summary(TypedDict, total=False):
    """The sections that exist so far, and what the run is of, which is written anew each time."""

    autoencoder: AutoencoderSummary
    prior: PriorSummary
    coded: CodedSummary
    samples: Annotated[dict[str, float | str | bool | None], Keys(("step", "autoencoder_step"))]
    data: str
    data_description: str
    latent: str
    jax: str
    python: str
    devices: str
    processes: Count


def read_summary(workdir: Path) -> Summary:
    """Return the summary of a run, {} before there is one; raise UserError if it is damaged."""
    return read_json(workdir / SUMMARY, Summary, advice=MADE_AGAIN) or Summary()


def write_summary(workdir: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary of a run."""
    write_json(workdir / SUMMARY, summary)
