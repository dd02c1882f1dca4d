"""The search for codes: what each rule minimises, ties, zero codes, a search in parts."""

import re

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax import latents
from hvq_jax.errors import ArgumentError
from hvq_jax.quantizers import assignment
from hvq_jax.quantizers.assignment import ASSIGNMENTS, nearest_codes

K, D = 6, 4
SHAPES = [(), (5,), (2, 3), (2, 3, 2)]

finite = st.floats(-4, 4, width=32).map(lambda x: x if abs(x) > 2**-10 else 0.0)


@given(hnp.arrays(np.float32, (7, D), elements=finite), hnp.arrays(np.float32, (K, D), elements=finite))
def test_nearest_codes_minimise_the_distance(z_e, codes):
    indices = nearest_codes(jnp.asarray(z_e), jnp.asarray(codes))
    distances = np.square(z_e[:, None].astype(np.float64) - codes.astype(np.float64)).sum(-1)
    chosen = np.take_along_axis(distances, np.asarray(indices)[:, None], 1)[:, 0]
    # The search is in float32 on values up to 4·4²·2: its rounding decides between codes this close.
    assert (chosen <= distances.min(1) + 1e-4).all()
    assert indices.dtype == jnp.int32


def test_ties_go_to_the_lowest_index():
    codes = jnp.array([[2.0, 0], [1.0, 0], [-1.0, 0], [1.0, 0]])
    assert nearest_codes(jnp.zeros((1, 2)), codes)[0] == 1
    assert nearest_codes(jnp.array([1.0, 5.0]), codes) == 1


@pytest.mark.parametrize("at_once", [1, 2, 4, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_codebook_searched_in_parts_gives_the_same_codes(monkeypatch, at_once, shape):
    # Small integers: exact in any order, and full of ties.
    random = np.random.default_rng(0)
    z_e, codes = random.integers(-2, 3, (*shape, D)), random.integers(-1, 2, (11, D))
    whole = nearest_codes(jnp.asarray(z_e), jnp.asarray(codes))
    distances = np.square(z_e[..., None, :] - codes).sum(-1)
    np.testing.assert_array_equal(whole, distances.argmin(-1))
    monkeypatch.setattr(assignment, "most_costs", lambda: at_once * max(int(np.prod(shape)), 1))
    in_parts = nearest_codes(jnp.asarray(z_e), jnp.asarray(codes))
    np.testing.assert_array_equal(in_parts, whole)
    assert in_parts.dtype == jnp.int32


def test_a_search_in_parts_holds_no_more_distances_than_it_may(monkeypatch):
    z_e, codes = jnp.ones((100, D)), jnp.ones((1000, D))
    monkeypatch.setattr(assignment, "most_costs", lambda: 5000)

    program = jax.jit(nearest_codes).lower(z_e, codes).as_text()
    sizes = [
        np.prod([int(side) for side in shape.split("x")]) for shape in re.findall(r"tensor<([\dx]+)xf32>", program)
    ]
    assert max(sizes) == 5000


def test_nearest_codes_decides_in_float32_whatever_comes_in():
    codes = jnp.array([[100.0, 0], [100.0, 0.25]])
    z_e = jnp.array([100.0, 0.25])
    assert nearest_codes(z_e.astype(jnp.bfloat16), codes) == 1


def costs_in_float64(z_e, codes, rule):
    """`[N, K]`, infinite for a zero code where direction decides."""
    z_e, codes = z_e.astype(np.float64), codes.astype(np.float64)
    if rule == "euclidean":
        return np.square(z_e[:, None] - codes).sum(-1)
    norms = np.sqrt(np.square(codes).sum(-1))
    along = z_e @ codes.T / np.where(norms > 0, norms, 1.0)
    return np.where(norms > 0, -along if rule == "cosine" else -np.square(along), np.inf)


vectors = hnp.arrays(np.float32, (7, D), elements=finite)
tables = hnp.arrays(np.float32, (K, D), elements=finite)


@pytest.mark.parametrize("rule", ASSIGNMENTS)
@given(vectors, tables)
def test_each_rule_minimises_its_cost(rule, z_e, codes):
    indices = np.asarray(nearest_codes(jnp.asarray(z_e), jnp.asarray(codes), rule))
    costs = costs_in_float64(z_e, codes, rule)
    chosen = np.take_along_axis(costs, indices[:, None], 1)[:, 0]
    if np.isinf(costs).all():
        np.testing.assert_array_equal(indices, np.zeros(7))
        return
    # Costs up to 8² are computed in float32: its rounding decides between codes this close.
    assert (chosen <= costs.min(1) + 1e-4).all()


@pytest.mark.parametrize("search", [nearest_codes, assignment.code_costs])
def test_an_unknown_rule_is_refused_with_the_known_ones(search):
    with pytest.raises(ArgumentError) as error:
        search(jnp.zeros((2, D)), jnp.ones((K, D)), assignment="unknown")
    assert str(error.value) == "assignment=unknown: choose one of euclidean, cosine, projection"


@given(vectors, tables)
def test_the_nearest_line_has_the_smallest_error_of_projection(z_e, codes):
    indices = nearest_codes(jnp.asarray(z_e), jnp.asarray(codes), "projection")
    errors = np.square(z_e[:, None] - np.asarray(latents.project(z_e[:, None], jnp.asarray(codes)))).sum(-1)
    chosen = np.take_along_axis(errors, np.asarray(indices)[:, None], 1)[:, 0]
    # A zero code projects onto zero, which no line is worse than.
    assert (chosen <= errors.min(1) + 1e-4).all()  # errors up to 8², in float32


def test_the_nearest_line_is_not_that_of_the_nearest_code():
    codes = jnp.array([[1.0, 0.5], [-5.0, 0.0]])
    z_e = jnp.array([1.0, 0.1])
    assert nearest_codes(z_e, codes) == 0
    assert nearest_codes(z_e, codes, "cosine") == 0
    assert nearest_codes(z_e, codes, "projection") == 1


@pytest.mark.parametrize("rule", ["cosine", "projection"])
@pytest.mark.parametrize("at_once", [1, 2, 4, 5, 100])
def test_directions_ignore_lengths_ties_go_to_the_lowest_and_zero_is_chosen_last(monkeypatch, rule, at_once):
    # Whole multiples of axes: their unit vectors are exact, so ties are ties.
    codes = jnp.array([[0.0, 0, 0], [0, 0, 2], [0, 4, 0], [0, 1, 0], [-8, 0, 0], [0, 0, -1], [0, 0, 0]])
    z_e = jnp.array([[0.0, 3, 0], [0, 0, -1], [2, 0, 0], [0, 0, 0]])
    monkeypatch.setattr(assignment, "most_costs", lambda: at_once * len(z_e))
    # The third has cosine −1 or 0 with every code; a zero vector has no preference.
    expected = [2, 5, 1, 1] if rule == "cosine" else [2, 1, 4, 1]
    np.testing.assert_array_equal(nearest_codes(z_e, codes, rule), expected)
    np.testing.assert_array_equal(nearest_codes(z_e, jnp.zeros((7, 3)), rule), np.zeros(4))


@pytest.mark.parametrize("rule", ASSIGNMENTS)
def test_the_costs_of_all_codes_are_those_of_the_search(rule):
    random = np.random.default_rng(0)
    z_e, codes = random.normal(size=(5, 3, D)).astype(np.float32), random.normal(size=(K, D)).astype(np.float32)
    costs = assignment.code_costs(jnp.asarray(z_e), jnp.asarray(codes), rule)
    np.testing.assert_array_equal(jnp.argmin(costs, -1), nearest_codes(z_e, jnp.asarray(codes), rule))
    shared = np.square(z_e).sum(-1, keepdims=True) if rule == "euclidean" else 0.0
    expected = costs_in_float64(z_e.reshape(-1, D), codes, rule).reshape(costs.shape)
    np.testing.assert_allclose(costs + shared, expected, atol=1e-5)


@pytest.mark.parametrize("num_vectors", [4096, 65536])
def test_the_search_takes_at_most_64_mib_besides_its_arguments(num_vectors):
    vectors, codes = (jax.ShapeDtypeStruct((count, 8), jnp.float32) for count in (num_vectors, 8192))
    compiled = jax.jit(assignment.nearest_codes).lower(vectors, codes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 64 * 2**20
