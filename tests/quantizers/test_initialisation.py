"""Codes from data: rows, cluster means, empty clusters, any number of devices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.quantizers.initialisation import codes_from_data

K, D = 6, 3


@functools.partial(jax.jit, static_argnames=("iterations", "num_codes", "axis_name"))
def codes_of(vectors, iterations, seed=0, num_codes=K, axis_name=None):
    like = jnp.zeros((num_codes, D))
    key = jax.random.key(seed)
    return codes_from_data(jnp.asarray(vectors), like, key, iterations=iterations, axis_name=axis_name)


def blobs(seed=0, size=32):
    """`[K * size, D]` around K centres that are far apart."""
    random = np.random.default_rng(seed)
    centres = 10.0 * np.array([[i, j, 0] for i in range(3) for j in range(2)])
    points = centres[:, None] + random.normal(size=(K, size, D))
    return centres, random.permutation(points.reshape(-1, D)).astype(np.float32)


def error(vectors, codes):
    return np.square(vectors[:, None] - np.asarray(codes)).sum(-1).min(1).mean()


@pytest.mark.parametrize("seed", range(3))
def test_no_iterations_are_distinct_rows_and_each_one_lowers_the_error(seed):
    _, vectors = blobs()
    vectors = vectors[:, :D]
    rows = {tuple(row) for row in vectors}
    start = {tuple(row) for row in np.asarray(codes_of(vectors, 0, seed))}
    assert len(start) == K
    assert start <= rows
    errors = [error(vectors, codes_of(vectors, iterations, seed)) for iterations in range(6)]
    # Lloyd's algorithm never raises it, where no cluster is emptied; 1e-5 is the smoothing of the counts.
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


def test_at_the_end_each_code_is_the_mean_of_the_vectors_nearest_to_it():
    _, vectors = blobs()
    codes = np.asarray(codes_of(vectors, 30))
    nearest = np.square(vectors[:, None] - codes).sum(-1).argmin(1)
    for j in range(K):
        # The counts are smoothed: one part in 1e5 of them.
        np.testing.assert_allclose(codes[j], vectors[nearest == j].mean(0), rtol=1e-4, atol=1e-3)


def test_clusters_that_are_far_apart_are_found_from_one_row_of_each():
    centres, vectors = blobs()
    for seed in range(20):  # one of them draws from every cluster
        start = np.asarray(codes_of(vectors, 0, seed))
        drawn_from = np.square(start[:, None] - centres).sum(-1).argmin(1)
        if len(set(drawn_from)) == K:
            break
    found = np.asarray(codes_of(vectors, 2, seed))
    own = np.square(vectors[:, None] - centres).sum(-1).argmin(1)
    expected = np.stack([vectors[own == j].mean(0) for j in drawn_from])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_empty_clusters_end_on_vectors():
    """Two distinct vectors and six codes: four of them have no vector to be the mean of."""
    vectors = np.repeat(np.array([[1, 2, 3], [-4, 0, 4]], np.float32), 16, axis=0)
    for iterations in (0, 1, 5):
        codes = np.asarray(codes_of(vectors, iterations))
        assert np.isfinite(codes).all()
        assert error(codes, vectors) < 1e-6


def test_more_codes_than_vectors():
    vectors = np.arange(4 * D, dtype=np.float32).reshape(4, D)
    codes = codes_of(vectors, 3)
    assert np.isfinite(codes).all()
    assert error(np.asarray(codes), vectors) < 25  # on vectors, or between two of them


def test_the_key_decides_and_nothing_else():
    _, vectors = blobs()
    np.testing.assert_array_equal(codes_of(vectors, 3), codes_of(vectors, 3))
    assert (np.asarray(codes_of(vectors, 0)) != np.asarray(codes_of(vectors, 0, seed=1))).any()


@pytest.mark.parametrize("iterations", [0, 10])
def test_one_device_and_four_find_the_same_clusters(iterations):
    """Rows bit for bit; means to the rounding of another order of addition."""
    _, vectors = blobs()
    whole = codes_of(vectors, iterations)
    on_device = jax.pmap(lambda v: codes_of(v, iterations, axis_name="devices"), "devices")
    many = np.asarray(on_device(vectors.reshape(4, -1, D)))
    np.testing.assert_array_equal(many, np.broadcast_to(many[:1], many.shape))
    np.testing.assert_allclose(many[0], whole, rtol=0 if iterations == 0 else 1e-5, atol=1e-5 if iterations else 0)
