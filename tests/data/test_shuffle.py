import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hvq_jax.data.shuffle import permutation
from hvq_jax.errors import UserError


@hypothesis.given(st.integers(1, 500), st.integers(0, 2**32), st.integers(0, 1000))
def test_is_a_permutation(size, seed, epoch):
    np.testing.assert_array_equal(np.sort(permutation(size, seed, epoch)), np.arange(size))


def test_depends_on_every_seed():
    orders = [tuple(permutation(50, *seeds)) for seeds in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert len(set(orders)) == 4


def test_never_changes():
    # This order must never change, because resumed runs would see other images.
    assert permutation(10, 3, 1).tolist() == [0, 6, 2, 1, 3, 7, 4, 9, 8, 5]


def test_refuses_a_negative_seed():
    with pytest.raises(UserError, match="-1"):
        permutation(10, -1, 0)
