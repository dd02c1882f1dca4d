"""Parts of a batch are computed side by side, and give what the whole batch gives."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax.devices import side_by_side as module
from hvq_jax.devices.side_by_side import side_by_side


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "number_of_cores", lambda: 4)


@given(size=st.integers(1, 300), cores=st.integers(1, 9), rows=st.integers(1, 64))
def test_equal_parts_cover_the_batch_in_order(size: int, cores: int, rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "number_of_cores", lambda: cores)
        parts = side_by_side(lambda part: part, size, rows=rows)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(size))
    assert len({part.stop - part.start for part in parts}) == 1
    assert 1 <= len(parts) <= cores
    assert len(parts) == 1 or rows * size / len(parts) >= 8


def test_parts_are_at_work_at_the_same_time(four_cores: None) -> None:
    others = threading.Barrier(3, timeout=60)  # broken, unless three parts wait at once
    done: list[int] = []

    def call(part: slice) -> int:
        if part.start:
            assert done == [0], "the first part compiles, so the others begin after it"
            others.wait()
        else:
            done.append(part.start)
        return part.start

    assert side_by_side(call, 64) == [0, 16, 32, 48]


def test_a_program_is_compiled_once(four_cores: None) -> None:
    traced = []

    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        traced.append(x.shape)
        return jnp.cumsum(x)

    x = np.arange(64.0, dtype=np.float32)
    results = side_by_side(lambda part: program(x[part]), len(x))
    assert traced == [(16,)]
    np.testing.assert_array_equal(results, np.cumsum(x.reshape(4, 16), axis=1))


def test_the_error_of_a_part_is_raised(four_cores: None) -> None:
    def call(part: slice) -> None:
        if part.start == 32:
            raise ValueError("the third part")

    with pytest.raises(ValueError, match="the third part"):
        side_by_side(call, 64)


def test_an_accelerator_gets_the_whole_batch(four_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert side_by_side(lambda part: part, 64) == [slice(0, 64)]
