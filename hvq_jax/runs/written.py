"""A run with its writers, to which everything has been written when it ends."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hvq_jax.devices.cluster import is_first
from hvq_jax.runs.options import to_dict
from hvq_jax.runs.run import Run
from hvq_jax.runs.summary import read_summary
from hvq_jax.training.logging import Record, read_records
from hvq_jax.training.writers import opened_writers
from hvq_jax.training.writers.tracker import Tracker


@contextlib.contextmanager
def written(run: Run) -> Iterator[Run]:
    """Yield the run with its writers, on the first process; raise UserError if one of them cannot be started."""
    if not is_first():
        yield run
        return
    with opened_writers(run.options.logging, run.workdir, to_dict(run.options)) as writers:
        trackers = [writer for writer in writers if isinstance(writer, Tracker)]
        _catch_up(trackers, run.workdir)
        yield dataclasses.replace(run, context=dataclasses.replace(run.context, writers=writers))
        _catch_up(trackers, run.workdir)


def _catch_up(trackers: Sequence[Tracker], workdir: Path) -> None:
    """Write to the trackers what they lack of `metrics.jsonl` and of the metrics on the test split."""
    records = [*read_records(workdir), *_test_records(workdir)] if trackers else []
    for record in records:
        scalars = {name: value for name, value in record.items() if name not in Record.__annotations__}
        for tracker in trackers:
            tracker.record(record["stage"], record["split"], record["step"], scalars)


def _test_records(workdir: Path) -> list[dict[str, Any]]:
    """Return the metrics on the test split, but not of a prior of another autoencoder than that of now."""
    sections: dict[str, Any] = {**read_summary(workdir)}
    step = sections.get("autoencoder", {}).get("step", 0)
    return [
        {"stage": name, "split": "test", "step": section["step"], **section["test"]}
        for name, section in sections.items()
        if isinstance(section, dict) and "test" in section and section.get("autoencoder_step", step) == step
    ]
