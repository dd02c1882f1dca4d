"""The Python of the README does what its comments say."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import linen as nn

import hvq_jax as hvq

SNIPPETS = re.findall(r"```python\n(.*?)```", Path(__file__).parents[1].joinpath("README.md").read_text(), re.DOTALL)
USUAL = {"hvq": hvq, "jax": jax, "jnp": jnp, "nn": nn}


def executed(beginning, **replaced):
    """Execute the snippet that contains `beginning`, with texts replaced; return its names."""
    (snippet,) = (snippet for snippet in SNIPPETS if beginning in snippet)
    for old, new in replaced.items():
        assert old in snippet
        snippet = snippet.replace(old, new)
    names = dict(USUAL)
    exec(snippet, names)
    return names


def test_a_trained_run_is_used_as_the_readme_says(trained_run):
    found = executed("hvq.load(", **{"runs/quickstart": str(trained_run)})
    size, grid = found["run"].stream.image_shape, found["run"].stream.latent_shape
    assert found["drawn"].images.shape == found["images"].shape == (4, *size)
    assert found["codes"].indices.shape == found["codes"].gains.shape == (4, *grid)


def test_a_quantizer_is_put_into_a_network_as_the_readme_says():
    found = executed("HybridQuantizer")
    assert found["reconstructions"].shape == found["images"].shape
    assert int(found["variables"]["codebook"]["HybridQuantizer_0"]["steps"]) == 1
