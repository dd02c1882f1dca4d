import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax import latents
from hvq_jax.quantizers import codebook, learning
from hvq_jax.quantizers.assignment import nearest_codes

K, D, DEVICES = 8, 3, 4


def batch(seed=0, size=32):
    z_key, index_key = jax.random.split(jax.random.key(seed))
    return jax.random.normal(z_key, (size, 2, D)), jax.random.randint(index_key, (size, 2), 0, K - 2)


def on_devices(function, *sharded):
    """`function` over DEVICES equal shards; asserts that every device got the same and returns it."""
    cut = [x.reshape(DEVICES, -1, *x.shape[1:]) for x in sharded]
    results = jax.pmap(function, "devices", devices=jax.devices()[:DEVICES])(*cut)
    for leaf in jax.tree.leaves(results):
        for replica in leaf[1:]:
            np.testing.assert_array_equal(replica, leaf[0])
    return jax.tree.map(lambda x: x[0], results)


@given(st.sampled_from([0, 7, 40]).flatmap(lambda n: st.lists(st.integers(0, K - 1), min_size=n, max_size=n)))
def test_count_assignments_counts(indices):
    counts = jax.jit(codebook.count_assignments, static_argnums=1)(np.array(indices, np.int32), K)
    np.testing.assert_array_equal(counts, np.bincount(np.array(indices, int), minlength=K))
    assert counts.dtype == jnp.int32


@pytest.mark.parametrize(("decay", "expected"), [(1.0, [5, 7]), (0.0, [3, 1]), (0.5, [4, 4])])
def test_the_frequency_table_is_a_leaky_sum(decay, expected):
    table = codebook.update_frequency(jnp.array([2.0, 6.0]), jnp.array([3, 1]), decay)
    np.testing.assert_array_equal(table, np.array(expected, np.float32))


def test_averages_follow_the_papers_recursion():
    z_e, indices = batch()
    start = codebook.assigned(jax.random.normal(jax.random.key(3), (K, D)), 1.0)
    counts = codebook.count_assignments(indices, K)
    after = codebook.update_averages(start, z_e, indices, counts, decay=0.9, smoothing=0.0)
    for j in range(K):
        mine = np.asarray(z_e)[np.asarray(indices) == j]
        mean = indices.size / K  # the unit of counts and sums
        count = 0.9 * 1 + 0.1 * len(mine) / mean
        total = 0.9 * np.asarray(start.sums[j]) + 0.1 * mine.sum(0) / mean
        np.testing.assert_allclose(after.codes[j], total / count, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(after.counts[j], count, rtol=1e-6)
    # Repeated for ever on one batch, the codes are the means of their vectors.
    state = start
    for _ in range(200):
        state = codebook.update_averages(state, z_e, indices, counts, decay=0.8)
    for j in range(K - 2):
        mean = np.asarray(z_e)[np.asarray(indices) == j].mean(0)
        np.testing.assert_allclose(state.codes[j], mean, rtol=1e-3, atol=1e-4)
    chex.assert_tree_all_finite(state)


def test_smoothing_keeps_an_unassigned_code_finite():
    z_e, indices = batch()
    state = codebook.MovingAverages(jnp.ones((K, D)), jnp.zeros(K), jnp.zeros((K, D)))
    counts = codebook.count_assignments(indices, K)
    chex.assert_tree_all_finite(codebook.update_averages(state, z_e, indices, counts, decay=0.9))


@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 17, 64]))
def test_drawn_vectors_are_distinct_rows_of_the_batch(seed, count):
    rows = np.arange(64 * D, dtype=np.float32).reshape(64, D)
    drawn = codebook.draw_vectors(jnp.asarray(rows), count, jax.random.key(seed))
    first = np.asarray(drawn)[:, 0]
    assert set(first) <= set(rows[:, 0])
    assert len(set(first)) == count
    np.testing.assert_array_equal(drawn, rows[(first / D).astype(int)])


def test_more_vectors_than_rows_repeats_rows():
    drawn = codebook.draw_vectors(jnp.ones((2, D)), 5, jax.random.key(0))
    np.testing.assert_array_equal(drawn, np.ones((5, D)))


def test_revival_resets_everything_of_a_dead_code_and_nothing_of_a_live_one():
    z_e, _ = batch()
    state = codebook.MovingAverages(
        codes=jnp.full((K, D), 9.0), counts=jnp.array([0.2, 5, 0.99, 1, 3, 2, 0, 8]), sums=jnp.full((K, D), 7.0)
    )
    frequency = jnp.arange(1.0, K + 1)
    revived, new_frequency, dead = codebook.revive(state, frequency, z_e, jax.random.key(1), below=1.0)
    np.testing.assert_array_equal(dead, [True, False, True, False, False, False, True, False])
    rows = {tuple(row) for row in np.asarray(z_e).reshape(-1, D)}
    for j in range(K):
        if dead[j]:
            assert tuple(np.asarray(revived.codes[j])) in rows
            np.testing.assert_array_equal(revived.sums[j], revived.codes[j] * revived.counts[j])
            assert revived.counts[j] >= 1.0
            assert new_frequency[j] == 0
        else:
            np.testing.assert_array_equal(revived.codes[j], state.codes[j])
            np.testing.assert_array_equal(revived.sums[j], state.sums[j])
            assert revived.counts[j] == state.counts[j]
            assert new_frequency[j] == frequency[j]


def test_the_first_revival_is_the_initialisation_from_data_even_where_none_follow():
    z_e, _ = batch()
    start = codebook.unassigned(codebook.uniform_codes(jax.random.key(0), K, D))
    revived, _, dead = codebook.revive(start, jnp.zeros(K), z_e, jax.random.key(1), below=0.0)
    assert dead.all()
    assert len({tuple(row) for row in np.asarray(revived.codes)}) == K
    _, _, dead = codebook.revive(revived, jnp.zeros(K), z_e, jax.random.key(2), below=0.0)
    assert not dead.any()


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_size_of_the_batch_changes_nothing_but_the_noise(decay):
    """The same vectors four times over: the same codes, counts and deaths."""
    z_e, indices = batch()
    start = codebook.assigned(jax.random.normal(jax.random.key(3), (K, D)), 0.2)
    small, large = (
        codebook.update_averages(start, z, i, codebook.count_assignments(i, K), decay=decay)
        for z, i in ((z_e, indices), (jnp.tile(z_e, (4, 1, 1)), jnp.tile(indices, (4, 1))))
    )
    chex.assert_trees_all_close(small, large, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(small.counts.sum(), K * (decay * 0.2 + 1 - decay), rtol=1e-5)


@pytest.mark.parametrize(("num_codes", "num_vectors"), [(16, 4096), (128, 128), (1024, 49)])
def test_few_codes_are_revived_in_the_end_whatever_their_number_and_that_of_vectors(num_codes, num_vectors):
    """With an absolute threshold of 1, 0 to 95 % of them were, at every step."""
    rule = learning.MovingAverageRule()

    def step(state, key):
        vector_key, revival_key = jax.random.split(key)
        vectors = jax.random.normal(vector_key, (num_vectors, D))
        state, _, revived = rule.revive({}, state, jnp.zeros(num_codes), vectors, revival_key, None)
        indices = nearest_codes(vectors, state.codes)
        counts = codebook.count_assignments(indices, num_codes)
        return rule.update(state, vectors, indices, counts, None), (revived.mean(), counts)

    state = rule.init(jnp.zeros((num_codes, D)), known=False)[1]
    _, (revived, counts) = jax.jit(lambda: jax.lax.scan(step, state, jax.random.split(jax.random.key(0), 400)))()
    assert revived[0] == 1
    assert 0 <= revived[-200:].mean() < 0.005
    used = (np.asarray(counts[-200:]).sum(axis=0) > 0).mean()
    assert used > 0.9


def test_uniform_codes_lie_within_one_over_k():
    codes = codebook.uniform_codes(jax.random.key(0), 64, 16)
    assert np.abs(codes).max() <= 1 / 64
    assert np.abs(codes).max() > 0.9 / 64


def test_one_device_and_four_agree_on_the_same_global_batch():
    """The draw and the counts bit for bit; sums of vectors to the rounding of another order of addition."""
    z_e, indices = batch()
    key = jax.random.key(5)
    start = codebook.assigned(jax.random.normal(jax.random.key(3), (K, D)), 1.0)

    def step(z_e, indices, axis_name=None):
        state, frequency, dead = codebook.revive(
            start.replace(counts=jnp.arange(0.0, K)), jnp.ones(K), z_e, key, below=3.0, axis_name=axis_name
        )
        counts = codebook.count_assignments(indices, K, axis_name)
        after = codebook.update_averages(state, z_e, indices, counts, decay=0.9, axis_name=axis_name)
        return state, codebook.update_frequency(frequency, counts, 1.0), dead, counts, after

    state, frequency, dead, counts, after = step(z_e, indices)
    many = on_devices(lambda z, i: step(z, i, "devices"), z_e, indices)
    chex.assert_trees_all_equal(many[:4], (state, frequency, dead, counts))
    chex.assert_trees_all_close(many[4], after, rtol=1e-6, atol=1e-6)


def test_vectors_are_turned_to_face_their_code_and_keep_their_projection():
    z_e, indices = batch()
    codes = jax.random.normal(jax.random.key(3), (K, D))[indices]
    turned = codebook.facing(z_e, codes)
    inner = np.sum(np.asarray(z_e) * np.asarray(codes), -1)
    assert (inner < 0).any()
    assert (np.sum(np.asarray(turned) * np.asarray(codes), -1) >= 0).all()
    np.testing.assert_array_equal(turned, np.where(inner[..., None] < 0, -z_e, z_e))


@given(st.integers(0, 2**31 - 1))
def test_a_spherical_update_raises_the_length_that_codes_project(seed):
    """e = Σ s z / |Σ s z| gives Σ |⟨z, e⟩| ≥ |Σ s z| ≥ Σ s ⟨z, e_before⟩ = Σ |⟨z, e_before⟩|, cluster by cluster."""
    z_e, indices = batch(seed)
    before = latents.unit(jax.random.normal(jax.random.key(seed), (K, D)))
    counts = codebook.count_assignments(indices, K)
    turned = codebook.facing(z_e, before[indices])
    start = codebook.assigned(before, 1.0)
    moved = codebook.update_averages(start, turned, indices, counts, decay=0.0)
    after = latents.unit(moved.codes)

    def lengths(codes):
        each = np.abs(np.sum(np.asarray(z_e) * np.asarray(codes)[indices], -1))
        return np.bincount(np.asarray(indices).reshape(-1), each.reshape(-1), minlength=K)

    # Sums of up to 64 lengths, in float32.
    assert (lengths(after) >= lengths(before) - 1e-4).all()
    assigned = np.asarray(counts) > 0
    np.testing.assert_allclose(np.linalg.norm(np.asarray(after)[assigned], axis=-1), 1.0, rtol=1e-5)


def test_kept_codes_count_as_assigned_so_often():
    codes = jax.random.normal(jax.random.key(0), (K, D))
    kept = codebook.assigned(codes, 3.0)
    np.testing.assert_array_equal(kept.counts, np.full(K, 3.0))
    np.testing.assert_allclose(kept.sums / kept.counts[:, None], codes, rtol=1e-6)
