"""The comparison of thresholds of revival."""

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax.quantizers import CodebookOptions, LatentOptions, codebook, make_quantizer
from studies.codebooks.revival import THRESHOLDS, table


def test_the_absolute_threshold_is_one_assignment_per_step():
    """With 4 codes and 8 vectors the mean is 2, and half of it the threshold."""
    latent_options = LatentOptions(mode="vq", num_codes=4, dim=2)
    rule = make_quantizer(latent_options, CodebookOptions(learning=THRESHOLDS["one per step"])).rule
    state = codebook.assigned(jnp.ones((4, 2)), 1.0).replace(counts=jnp.array([0.0, 0.49, 0.5, 2.0]))
    _, _, revived = rule.revive({}, state, jnp.zeros(4), jnp.ones((2, 2, 2, 2)), jax.random.key(0), None)
    np.testing.assert_array_equal(revived, [True, True, False, False])


def test_the_table_has_a_row_for_each_result():
    found = {
        "devices": "1 × cpu",
        "jax": "0.10.2",
        "train_mse": 0.5,
        "validation_mse": 0.25,
        "train_commitment": 1.0,
        "validation_commitment": 2.0,
        "codes_used": 0.75,
        "perplexity": 30.0,
        "revived": 0.125,
    }
    lines = table({"64": {"default": found}, "8192": {"one per step": found, "default": found}}).splitlines()
    assert lines[2] == "| 64 | default | 1 × cpu | 0.10.2 | 0.5 | 0.25 | 1 | 2 | 0.75 | 30 | 0.125 |"
    assert [line.split(" | ")[1] for line in lines[3:]] == ["default", "one per step"]
