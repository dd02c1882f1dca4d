"""The state's place on the devices, batches cut for them, and the check that all hold the same."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax.devices.parallel import Parallel, checksum
from hvq_jax.errors import UserError


@given(st.integers(0, 11), st.integers(0, 31), st.integers(0, 2**32 - 1))
def test_the_checksum_sees_every_flipped_bit(position, bit, seed):
    words = np.random.default_rng(seed).integers(0, 2**32, 12, np.uint32)
    flipped = words.copy()
    flipped[position] ^= np.uint32(1 << bit)
    assert checksum({"a": words[:5], "b": words[5:]}) != checksum({"a": flipped[:5], "b": flipped[5:]})


def test_the_checksum_takes_every_kind_of_leaf_and_sees_their_order():
    tree = {"f": jnp.arange(3.0), "i": jnp.int32(7), "b": jnp.array([True, False]), "h": jnp.ones(2, jnp.bfloat16)}
    assert checksum(tree).dtype == jnp.uint32
    assert checksum(tree) == checksum(jax.tree.map(jnp.copy, tree))
    assert checksum(jnp.array([1.0, 2.0])) != checksum(jnp.array([2.0, 1.0]))
    assert checksum(jnp.array([True, False])) != checksum(jnp.array([False, True]))


def test_a_device_that_drifted_is_named():
    parallel = Parallel("pmap")
    state = parallel.replicate({"a": np.ones((2, 3), np.float32), "step": np.int32(4)})
    assert parallel.drifted_devices(state) == []
    copies = [np.ones((2, 3), np.float32) for _ in range(4)]
    copies[2][1, 1] = np.nextafter(np.float32(1), np.float32(2))
    shards = [jax.device_put(copy, device) for copy, device in zip(copies, jax.devices(), strict=True)]
    state["a"] = jax.make_array_from_single_device_arrays((2, 3), state["a"].sharding, shards)
    assert parallel.drifted_devices(state) == [2]
    assert Parallel("jit").drifted_devices({"a": np.ones(2)}) == []


@pytest.mark.parametrize("form", ["pmap", "jit"])
def test_prefetching_passes_every_batch_on_in_order(form):
    parallel = Parallel(form)
    double = parallel.compile(lambda factor, x: factor * x, sharded_result=True)
    factor = parallel.replicate(np.float32(2))
    batches = [np.arange(8.0) + 8 * i for i in range(5)]
    doubled = [parallel.gather(double(factor, batch)) for batch in parallel.prefetch(batches)]
    np.testing.assert_array_equal(doubled, [2 * batch for batch in batches])


def test_prefetching_reads_only_a_little_ahead():
    read = []
    endless = (read.append(i) or np.zeros(4) for i in range(100))
    batches = Parallel("pmap").prefetch(endless)
    next(batches)
    assert len(read) == 3


def test_batches_that_devices_cannot_share():
    for size in (2, 6):
        with pytest.raises(UserError, match=f"x.batch_size={size}: must be a multiple of 4, the number of devices"):
            Parallel("pmap").check_batch_size("x.batch_size", size)
    Parallel("jit").check_batch_size("x.batch_size", 3)
    Parallel("pmap").check()


def test_one_device_is_the_first_or_that_of_the_thread():
    def place(device):
        with jax.default_device(device):
            return Parallel("jit").replicate(np.ones(2)).devices()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(place, jax.devices()[1:3])) == [{device} for device in jax.devices()[1:3]]
    assert Parallel("jit").replicate(np.ones(2)).devices() == {jax.devices()[0]}
