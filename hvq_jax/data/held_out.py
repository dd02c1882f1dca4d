"""Validation and test splits that a data set lacks: taken out of its training items, the same ones in every run."""

from collections.abc import Collection, Sequence

import numpy as np

from hvq_jax.data.options import DataOptions
from hvq_jax.data.shuffle import permutation
from hvq_jax.errors import ArgumentError, UserError

HELD_OUT = ("validation", "test")
SPLITS = ("train", *HELD_OUT)

# Not the run's seed, so that every run on a data set is validated and tested on the same items.
_SEED = 0


def carve(
    count: int,
    missing: Collection[str],
    options: DataOptions,
    *,
    item: str,
    where: str = "",
    order: Sequence[str] = ("validation", "train", "test"),
) -> dict[str, np.ndarray]:
    """Return which of `count` training items are in each `missing` split, and which remain in "train", as sorted rows.

    >>> {split: len(rows) for split, rows in carve(100, ["test"], DataOptions(test_size=30), item="image").items()}
    {'train': 70, 'test': 30}

    Args:
        count: number of training items.
        missing: which of `HELD_OUT` are taken out of them.
        options: their sizes.
        item: what an item is, for errors.
        where: where the items are from, likewise.
        order: the order in which the splits are cut from a random permutation of the items. It must never change for
            the same data, because resumed runs would be tested on items they were trained on.

    Raises:
        ArgumentError: the sizes leave nothing to train on.
        UserError: there are fewer items than splits.
    """
    training_items = f"{count:,} training {item}{'' if count == 1 else 's'}{where}"
    if count <= len(missing):
        raise UserError(f"{training_items} cannot be divided into train, {' and '.join(missing)}: add some")
    sizes = {split: options.held_out_size(split, count) for split in missing}
    if missing and sum(sizes.values()) >= count:
        (first, size), *others = sizes.items()
        together = "".join(f" together with data.{other}_size={number}" for other, number in others)
        raise ArgumentError(
            f"{first}_size={size}",
            f"must be between 1 and {count - 1}{together}, since it is taken from the {training_items}",
        )
    sizes["train"] = count - sum(sizes.values())
    cut = [split for split in order if split in sizes]
    stops = np.cumsum([sizes[split] for split in cut])
    parts = np.split(permutation(count, _SEED), stops[:-1])
    return {split: np.sort(rows) for split, rows in zip(cut, parts, strict=True)}
