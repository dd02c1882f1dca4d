"""Splits taken out of the training items divide them, and are the same in every run."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hvq_jax.data.held_out import HELD_OUT, carve
from hvq_jax.data.options import DataOptions
from hvq_jax.errors import ArgumentError, UserError

LATENTS_ORDER = ("validation", "test", "train")


@hypothesis.given(
    st.integers(1, 200),
    st.sets(st.sampled_from(HELD_OUT)),
    st.integers(1, 120),
    st.integers(1, 120),
    st.permutations(["train", *HELD_OUT]),
)
def test_they_divide_the_items_or_leave_nothing(count, missing, validation_size, test_size, order):
    options = DataOptions(validation_size=validation_size, test_size=test_size)
    sizes = {split: getattr(options, f"{split}_size") for split in missing}
    if count <= len(missing):
        with pytest.raises(UserError, match=rf"^{count} training things? in a cannot be divided into train, "):
            carve(count, missing, options, item="thing", where=" in a", order=order)
        return
    if sum(sizes.values()) >= count:
        with pytest.raises(ArgumentError, match=rf"must be between 1 and {count - 1}.* {count} training things in a$"):
            carve(count, missing, options, item="thing", where=" in a", order=order)
        return
    rows = carve(count, missing, options, item="thing", order=order)
    assert {split: len(part) for split, part in rows.items()} == {"train": count - sum(sizes.values()), **sizes}
    assert all((np.diff(part) > 0).all() for part in rows.values())
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(count))


@pytest.mark.parametrize(
    ("order", "test"), [(("validation", "train", "test"), [26, 77, 94]), (LATENTS_ORDER, [2, 53, 59])]
)
def test_they_are_a_promise(order, test):
    """Of images, and of one's own latents: a resumed run would be tested on what it was trained on."""
    rows = carve(100, HELD_OUT, DataOptions(validation_size=5, test_size=3), item="image", order=order)
    assert [rows["validation"].tolist(), rows["test"].tolist()] == [[3, 11, 13, 20, 92], test]
