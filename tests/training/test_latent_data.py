import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvq_jax.training.latent_data import mean_gain_per_code

K = 5
grids = st.tuples(
    hnp.arrays(np.int32, (3, 2, 2), elements=st.integers(0, K - 1)),
    hnp.arrays(np.float32, (3, 2, 2), elements=st.floats(-2, 2, width=32)),
    hnp.arrays(bool, (3, 2, 2)),
)


@given(grids)
def test_the_mean_gain_of_each_code_over_its_continuous_positions(arrays):
    indices, gains, continuous = arrays
    found = mean_gain_per_code(indices, gains, continuous, K)
    assert found.dtype == np.float32
    for code in range(K):
        mine = gains[(indices == code) & continuous]
        # A code without a continuous position is drawn as it is.
        np.testing.assert_allclose(found[code], mine.mean() if mine.size else 1.0, atol=1e-6)
    in_groups = mean_gain_per_code(indices, np.stack([gains, 2 * gains], -1), continuous, K)
    np.testing.assert_array_equal(in_groups[:, 0], found)
    assert in_groups.shape == (K, 2)
