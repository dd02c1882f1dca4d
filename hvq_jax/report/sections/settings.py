"""What a run was: its data, its options, its versions and how long it took."""

import statistics
from collections.abc import Iterator
from typing import Any

from hvq_jax import __version__
from hvq_jax.data.datasets import data_title
from hvq_jax.progress import duration
from hvq_jax.report.blocks import details, number, section
from hvq_jax.report.findings import Findings
from hvq_jax.report.markup import Element, element, table
from hvq_jax.runs.history import in_words as changes_in_words
from hvq_jax.runs.options import KEYS, RunOptions, to_dict
from hvq_jax.runs.workdir import flatten

_STAGES = {"autoencoder": "images_per_second", "prior": "latents_per_second"}


def data(found: Findings) -> Element:
    """Return the section of the data, and of what was left out of it."""
    options = found.run.stream.options
    title = data_title(options.data.name) if found.run.stream.image_shape else str(options.prior.latents)
    facts = [element("p", element("b", title), ". ", found.summary.get("data_description", ""))]
    if found.contents:
        left_out = f"Left out: {found.not_used}." if found.not_used else "No image was left out."
        facts += [element("p", f"{found.contents}."), element("p", left_out)]
    if found.class_names:
        facts.append(element("p", "Classes: ", ", ".join(found.class_names), "."))
    missing = [element("li", element("b", name), f": {reason}") for name, reason in found.left_out.items()]
    if missing:
        facts += [element("p", "Not in this report:"), element("ul", missing)]
    return section("Data", facts)


def settings(found: Findings) -> Element:
    """Return the section of the options; those that differ from their defaults come first, with their meaning."""
    values, defaults = all_options(found), flatten(to_dict(RunOptions()))
    changed = [key for key in KEYS if values[key] != defaults[key]]
    entries = [_entry(key, values[key], defaults[key]) for key in changed]
    rest = [[element("code", key), in_words(values[key])] for key in KEYS if key not in changed]
    return section(
        "Settings",
        element("p", f"{len(changed)} of {len(KEYS)} options are not at their default:"),
        element("dl", entries),
        [element("p", change) for change in changes_in_words(found.history, [])],
        details("All other options, at their defaults", table(["option", "value"], rest)),
    )


def all_options(found: Findings) -> dict[str, Any]:
    """Return the options of a run by their dotted names."""
    return flatten(to_dict(found.run.stream.options))


def _entry(key: str, value: Any, default: Any) -> Element:
    was = element("small", f" default {in_words(default)}")
    return element(
        "div",
        element("dt", element("code", key), " = ", element("b", in_words(value)), was),
        element("dd", KEYS[key].metadata["rule"].help),
    )


def in_words(value: Any) -> str:
    """Return the value of an option as a text."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def versions(found: Findings) -> Element:
    """Return the section of versions and times."""
    summary, count = found.summary, found.summary.get("processes", 1)
    rows = [
        ["trained on", f"{summary.get('devices', 'unknown')}, {count} process{'' if count == 1 else 'es'}"],
        ["JAX and Python", f"{summary.get('jax', 'unknown')} and {summary.get('python', 'unknown')}"],
        ["this report", f"hvq_jax {__version__}"],
        *_times(found),
    ]
    return section("Versions and times", table(["", ""], rows, class_="facts"))


def _times(found: Findings) -> Iterator[list[str]]:
    for stage, per_second in _STAGES.items():
        records = [
            row for row in found.records if row["stage"] == stage and row["split"] == "train" and row.get(per_second)
        ]
        if not records:
            continue
        batch = getattr(found.run.stream.options, stage).batch_size
        steps = [0, *(row["step"] for row in records)]
        seconds = sum(
            (after - before) * batch / row[per_second]
            for before, after, row in zip(steps, steps[1:], records, strict=False)
        )
        speed = statistics.median(row[per_second] for row in records)
        unit = per_second.replace("_", " ")
        yield [f"{stage}, {records[-1]['step']:,} steps", f"{duration(seconds)} of steps; {speed:,.0f} {unit} (median)"]
    metrics = found.metrics
    if "compress_ms_per_image" in metrics:
        there, back = metrics["compress_ms_per_image"], metrics["decompress_ms_per_image"]
        yield ["here", f"{number(there, 3)} ms per image to compress, {number(back, 3)} ms to decompress"]
