import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from hvq_jax.errors import ArgumentError
from hvq_jax.priors.bins import fit_bins, from_bins, to_bins

N, K = 40, 3
floats = st.floats(-100, 100, width=32, allow_subnormal=False)
# Any values, or only a few distinct ones, so that there are more bins than values.
any_values = hnp.arrays(np.float32, N, elements=floats) | hnp.arrays(
    np.float32, N, elements=st.sampled_from([-3.0, -0.0, 0.0, 1.0, 1 + 2**-23, 64.0])
)
any_codes = hnp.arrays(np.int32, N, elements=st.integers(0, K - 1))
any_bins = st.sampled_from([1, 2, 3, 8])
either = st.booleans()


def fit(values, codes, num_bins, per_code=False, **options):
    return fit_bins(values, codes, num_codes=K, num_bins=num_bins, per_code=per_code, **options)


def tables(codes, centroids):
    return np.broadcast_to(centroids, (K, centroids.shape[1]))[codes].astype(np.float64)


def squared_errors(values, codes, centroids):
    """Return the index of the nearest centroid by comparing all."""
    return np.square(values.astype(np.float64)[:, None] - tables(codes, centroids)).min(axis=1)


def rounding(values):
    """Return a bound on what rounding centroids to float32 adds to a squared error."""
    return 1e-6 * (1 + np.square(values.astype(np.float64)).max())


@given(any_values, any_codes, any_bins, either)
def test_centroids_rise_and_are_finite(values, codes, num_bins, per_code):
    centroids = fit(values, codes, num_bins, per_code)
    assert centroids.shape == (K if per_code else 1, num_bins)
    assert centroids.dtype == np.float32
    assert np.isfinite(centroids).all()
    assert (np.diff(centroids) >= 0).all()


@given(any_values, any_codes, any_bins, either, hnp.arrays(np.float32, N, elements=floats))
def test_every_value_goes_to_its_nearest_centroid_and_stays_there(values, codes, num_bins, per_code, others):
    centroids = fit(values, codes, num_bins, per_code)
    for inputs in (values, others):
        chosen = to_bins(inputs, codes, centroids)
        assert chosen.dtype == np.int32
        decoded = from_bins(chosen, codes, centroids)
        assert decoded.dtype == np.float32
        distances = np.abs(inputs[:, None] - tables(codes, centroids))
        # Distances are rounded before they are compared.
        assert (np.abs(inputs - np.float64(decoded)) <= distances.min(axis=1) * (1 + 1e-6)).all()
        np.testing.assert_array_equal(to_bins(decoded, codes, centroids), chosen)


@given(any_values, any_codes, any_bins)
def test_bins_rise_with_the_value_so_a_move_inside_a_cell_changes_none(values, codes, num_bins):
    centroids = fit(values, codes, num_bins)
    assert (np.diff(to_bins(np.sort(values), codes, centroids)) >= 0).all()


def test_a_tie_goes_to_the_lower_bin_and_equal_centroids_are_one_bin():
    centroids = np.array([[-1.0, 1.0, 2.0, 2.0]], np.float32)
    values = np.array([-np.inf, -5, 0, np.nextafter(np.float32(0), 1), 1.5, 2, 9], np.float32)
    np.testing.assert_array_equal(to_bins(values, np.zeros(7, int), centroids)[1:], [0, 0, 0, 1, 2, 2])
    adjacent = np.array([[1.0, np.nextafter(np.float32(1), 2)]], np.float32)
    np.testing.assert_array_equal(to_bins(adjacent[0], np.zeros(2, int), adjacent), [0, 1])


@given(hnp.arrays(np.float32, 7, elements=floats), st.integers(1, 4))
def test_few_values_get_the_best_of_all_partitions(values, num_bins):
    cells = (
        np.split(np.sort(values.astype(np.float64)), cuts) for cuts in itertools.combinations(range(1, 7), num_bins - 1)
    )
    best = min(sum(np.square(cell - cell.mean()).sum() for cell in partition) for partition in cells)
    codes = np.zeros(7, int)
    np.testing.assert_allclose(
        squared_errors(values, codes, fit(values, codes, num_bins)).sum(), best, atol=rounding(values)
    )


@given(any_values, any_codes, either)
def test_the_error_does_not_rise_with_the_bins(values, codes, per_code):
    errors = [squared_errors(values, codes, fit(values, codes, n, per_code)).mean() for n in range(1, 9)]
    assert np.diff(errors).max() <= rounding(values)


@given(any_values, any_codes, any_bins)
def test_a_table_per_code_is_no_worse_than_one(values, codes, num_bins):
    one, own = (squared_errors(values, codes, fit(values, codes, num_bins, x)).mean() for x in (False, True))
    assert own <= one + rounding(values)


# Too many values for every cut to be tried, drawn from a few clusters with long tails.
@given(st.integers(0, 2**31), st.sampled_from([2, 5, 16]))
def test_centroids_of_many_values_are_the_means_of_their_cells_and_iterations_help(seed, num_bins):
    rng = np.random.default_rng(seed)
    values = (rng.standard_t(3, 2000) + rng.choice(rng.normal(0, 5, 4), 2000)).astype(np.float32)
    codes = np.zeros(2000, int)
    errors = [
        squared_errors(values, codes, fit(values, codes, num_bins, max_iterations=n)).mean() for n in range(0, 12, 2)
    ]
    assert np.diff(errors).max() <= 1e-6
    centroids = fit(values, codes, num_bins, max_iterations=10_000)
    assert len(np.unique(centroids)) == num_bins
    # By the exact midpoints: a bin's distances are rounded.
    cells = np.digitize(values, (centroids[0, 1:].astype(np.float64) + centroids[0, :-1]) / 2, right=True)
    np.testing.assert_allclose(
        [values[cells == j].astype(np.float64).mean() for j in range(num_bins)], centroids[0], rtol=1e-5, atol=1e-5
    )


def least_error(values, num_bins):
    """Return the least squared error of all partitions into cells, by dynamic programming over every cut."""
    values, count = np.sort(values.astype(np.float64)), len(values)
    errors = np.full((count + 1, count + 1), np.inf)  # [end, start]
    for start in range(count):
        offsets = values[start:] - values[start]
        totals, squares = np.cumsum(offsets), np.cumsum(np.square(offsets))
        errors[start + 1 :, start] = np.maximum(squares - totals**2 / np.arange(1, len(offsets) + 1), 0)
    np.fill_diagonal(errors, 0.0)
    least = errors[:, 0]
    for _ in range(num_bins - 1):
        least = (errors + least).min(axis=1)
    return least[-1]


HEAVY_TAILED = {
    "Cauchy": lambda rng, count: rng.standard_cauchy(count),
    "Pareto": lambda rng, count: rng.pareto(0.5, count),
    "log-normal": lambda rng, count: rng.lognormal(0, 3, count),
    "outliers": lambda rng, count: rng.normal(0, np.where(np.arange(count) < 10, 1e4, 1)),
    "normal": lambda rng, count: rng.normal(size=count),
    "scales": lambda rng, count: rng.normal(size=count) * 10 ** rng.uniform(-3, 3, count),
}


@pytest.mark.parametrize("draw", HEAVY_TAILED.values(), ids=HEAVY_TAILED)
@pytest.mark.parametrize("num_bins", [16, 64])
def test_the_error_is_near_the_least_also_for_heavy_tails(draw, num_bins):
    for seed in range(2):
        values, codes = draw(np.random.default_rng(seed), 1000).astype(np.float32), np.zeros(1000, int)
        error = squared_errors(values, codes, fit(values, codes, num_bins)).sum()
        assert error <= 1.02 * least_error(values, num_bins)


# Max (1960), table I.
@pytest.mark.parametrize(
    ("num_bins", "positive", "error"),
    [(2, [np.sqrt(2 / np.pi)], 0.3634), (4, [0.4528, 1.510], 0.1175), (8, [0.2451, 0.7560, 1.344, 2.152], 0.03454)],
)
def test_the_bins_of_a_gaussian_are_those_of_max(num_bins, positive, error):
    values = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    codes = np.zeros(100_000, int)
    centroids = fit(values, codes, num_bins)
    np.testing.assert_allclose(centroids[0], [*-np.array(positive)[::-1], *positive], atol=1e-3)
    np.testing.assert_allclose(squared_errors(values, codes, centroids).mean(), error, rtol=2e-3)


@given(any_values, any_codes)
def test_one_bin_is_the_mean_and_a_code_without_values_gets_that_of_all(values, codes):
    means = [values[codes == k].mean() if (codes == k).any() else values.mean() for k in range(K)]
    np.testing.assert_allclose(fit(values, codes, 1, per_code=True)[:, 0], means, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fit(values, codes, 1), [[values.mean()]], rtol=1e-4, atol=1e-4)


def test_a_code_without_values_gets_all_the_bins_of_all_values():
    values, codes = np.arange(8.0), np.repeat([0, 2], 4)
    centroids = fit(values, codes, 2, per_code=True)
    np.testing.assert_array_equal(centroids, [[0.5, 2.5], [1.5, 5.5], [4.5, 6.5]])
    np.testing.assert_array_equal(fit(values[:0], codes[:0], 2, per_code=True), np.zeros((K, 2)))


def test_fewer_distinct_values_than_bins_are_all_found():
    values, codes = np.repeat(np.array([-1.0, 0.25, 7.0]), [900, 1, 99]), np.zeros(1000, int)
    np.testing.assert_array_equal(fit(values, codes, 5), [[-1.0, 0.25, 7.0, 7.0, 7.0]])
    np.testing.assert_array_equal(fit(np.full(9, 3.0), codes[:9], 4), [[3.0] * 4])


@pytest.mark.parametrize("per_code", [False, True])
def test_groups_have_tables_of_their_own_where_codes_do(per_code):
    rng = np.random.default_rng(0)
    values, codes = rng.normal([-5, 3], size=(200, 2)).astype(np.float32), rng.integers(0, K, 200)
    centroids = fit(values, codes, 4, per_code)
    assert centroids.shape == ((2 * K if per_code else 1), 4)
    shaped = to_bins(values.reshape(4, 5, 10, 2), codes.reshape(4, 5, 10), centroids)
    assert shaped.shape == (4, 5, 10, 2)
    decoded = from_bins(shaped, codes.reshape(4, 5, 10), centroids).reshape(200, 2)
    for group in range(2):
        of_group = fit(values[:, group], codes, 4, per_code=True) if per_code else centroids
        if per_code:
            np.testing.assert_array_equal(centroids[group::2], of_group)
        single = to_bins(values[:, group], codes, of_group)
        np.testing.assert_array_equal(shaped.reshape(200, 2)[:, group], single)
        np.testing.assert_array_equal(decoded[:, group], from_bins(single, codes, of_group))


def test_bins_inside_another_jit_are_the_same():
    values, codes = np.linspace(-3, 3, 60, dtype=np.float32), np.arange(60) % K
    centroids = fit(values, codes, 4, per_code=True)
    chosen = jax.jit(to_bins)(values, codes, centroids)
    np.testing.assert_array_equal(chosen, to_bins(values, codes, centroids))
    np.testing.assert_array_equal(jax.jit(from_bins)(chosen, codes, centroids), from_bins(chosen, codes, centroids))


def test_many_bins_come_close_to_the_law_of_high_rates():
    """Panter and Dite (1951): the error of G bins of a Gaussian tends to √3 π / (2 G²).

    Lloyd's iterations that start at equal counts are still 20 % above it after 300.
    """
    values = norm.ppf((np.arange(50_000) + 0.5) / 50_000)
    codes = np.zeros(len(values), int)
    error = squared_errors(values, codes, fit(values, codes, 64)).mean()
    assert 0.95 <= error / (np.sqrt(3) * np.pi / 2 / 64**2) <= 1.0


@pytest.mark.parametrize(("values", "num_bins"), [([1.0, np.nan], 2), ([1.0, np.inf], 2), ([1.0, 2.0], 0)])
def test_what_cannot_be_fitted_is_one_clear_line(values, num_bins):
    with pytest.raises(ArgumentError, match=r"^(num_bins=0: must|values: cannot fit bins, signed lengths are not) .*$"):
        fit(np.array(values), np.zeros(2, int), num_bins)
