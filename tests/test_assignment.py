"""The search for codes: what each rule minimises, ties, zero codes, a codebook in parts."""

import re

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_jax import assignment
from hvq_jax.assignment import nearest_codes

K, D = 6, 4
SHAPES = [(), (5,), (2, 3), (2, 3, 2)]

finite = st.floats(-4, 4, width=32).map(lambda x: x if abs(x) > 2**-10 else 0.0)


@given(hnp.arrays(np.float32, (7, D), elements=finite), hnp.arrays(np.float32, (K, D), elements=finite))
def test_nearest_codes_minimise_the_distance(z_e, codebook):
    indices = nearest_codes(jnp.asarray(z_e), jnp.asarray(codebook))
    distances = np.square(z_e[:, None].astype(np.float64) - codebook.astype(np.float64)).sum(-1)
    chosen = np.take_along_axis(distances, np.asarray(indices)[:, None], 1)[:, 0]
    # The search is in float32 on values up to 4·4²·2: its rounding decides between codes this close.
    assert (chosen <= distances.min(1) + 1e-4).all()
    assert indices.dtype == jnp.int32


def test_ties_go_to_the_lowest_index():
    codebook = jnp.array([[2.0, 0], [1.0, 0], [-1.0, 0], [1.0, 0]])
    assert nearest_codes(jnp.zeros((1, 2)), codebook)[0] == 1
    assert nearest_codes(jnp.array([1.0, 5.0]), codebook) == 1


@pytest.mark.parametrize("at_once", [1, 2, 4, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_codebook_searched_in_parts_gives_the_same_codes(monkeypatch, at_once, shape):
    # Small whole numbers: exact in any order, and full of ties.
    random = np.random.default_rng(0)
    z_e, codebook = random.integers(-2, 3, (*shape, D)), random.integers(-1, 2, (11, D))
    whole = nearest_codes(jnp.asarray(z_e), jnp.asarray(codebook))
    distances = np.square(z_e[..., None, :] - codebook).sum(-1)
    np.testing.assert_array_equal(whole, distances.argmin(-1))
    monkeypatch.setattr(assignment, "MOST_DISTANCES", at_once * max(int(np.prod(shape)), 1))
    in_parts = nearest_codes(jnp.asarray(z_e), jnp.asarray(codebook))
    np.testing.assert_array_equal(in_parts, whole)
    assert in_parts.dtype == jnp.int32


def test_a_search_in_parts_holds_no_more_distances_than_it_may(monkeypatch):
    z_e, codebook = jnp.ones((100, D)), jnp.ones((1000, D))
    monkeypatch.setattr(assignment, "MOST_DISTANCES", 5000)

    program = jax.jit(nearest_codes).lower(z_e, codebook).as_text()
    sizes = [
        np.prod([int(side) for side in shape.split("x")]) for shape in re.findall(r"tensor<([\dx]+)xf32>", program)
    ]
    assert max(sizes) == 5000


def test_nearest_codes_decides_in_float32_whatever_comes_in():
    codebook = jnp.array([[100.0, 0], [100.0, 0.25]])
    z_e = jnp.array([100.0, 0.25])
    assert nearest_codes(z_e.astype(jnp.bfloat16), codebook) == 1
