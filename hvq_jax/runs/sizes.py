"""Options that follow the size of the data set where they are not chosen: held-out splits and batches."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hvq_jax.data.held_out import HELD_OUT
from hvq_jax.errors import ArgumentError
from hvq_jax.layout import CHECKPOINTS, CONFIG
from hvq_jax.runs.options import KEYS, RunOptions
from hvq_jax.runs.workdir import flatten, load_config


def with_sizes(options: RunOptions, sizes: Mapping[str, Any]) -> RunOptions:
    """Return `options` with `sizes`, by split, as the sizes of held-out splits that are not chosen."""
    chosen = {f"{split}_size": size for split, size in sizes.items() if getattr(options.data, f"{split}_size") is None}
    return dataclasses.replace(options, data=dataclasses.replace(options.data, **chosen))


def with_sizes_of(workdir: Path, options: RunOptions) -> RunOptions:
    """Return `options` with the sizes of held-out splits that are not chosen as the run in `workdir` had them."""
    if not (workdir / CHECKPOINTS).exists() or not (workdir / CONFIG).exists():
        return options
    stored = flatten(load_config(workdir))
    return with_sizes(options, {split: stored.get(f"data.{split}_size") for split in HELD_OUT})


def with_batches_of_at_most(count: int, options: RunOptions, stages: Sequence[str], num_devices: int) -> RunOptions:
    """Return `options` with batches of at most `count` items, the number to train on.

    A batch size that is the default counts as not chosen; it becomes the largest that the devices can share.

    Raises:
        ArgumentError: a larger batch size was chosen, or there are fewer items than devices.
    """
    refused = []
    for stage in stages:
        stage_options = getattr(options, stage)
        largest = count - count % (num_devices * stage_options.accumulate_steps)
        if stage_options.batch_size <= count:
            continue
        if largest and stage_options.batch_size == KEYS[f"{stage}.batch_size"].default:
            options = dataclasses.replace(options, **{stage: dataclasses.replace(stage_options, batch_size=largest)})
        else:
            refused.append(f"{stage}.batch_size={stage_options.batch_size}")
    if refused:
        first, *others = refused
        also = "".join(f", too few for {other} too" for other in others)
        items = "latents" if options.prior.latents else "images"
        raise ArgumentError(first, f"there are only {count} training {items}{also}")
    return options
