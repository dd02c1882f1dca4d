"""A user's type checker: it takes numpy arrays, knows what results are, and refuses names that do not exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each line that ends in a comment has the error in it; no other line has one.
PROGRAM = """
import numpy as np
from flax import nnx

import hvq_jax as hvq

z_e, codes = np.ones((3, 2), np.float32), np.ones((4, 2), np.float32)
frequent, mask = np.ones(4, bool), np.ones(3, bool)
indices = hvq.nearest_codes(z_e, codes, assignment="cosine")
latent = hvq.hybrid_latent(z_e, codes, np.asarray(indices), frequent, mode="combined")
kept = hvq.codes_of(z_e, codes, mode="projected")
z_bar = hvq.from_codes(np.array([0, 1, -1]), codes, np.ones(3, np.float32))
hvq.project(z_e, z_e), hvq.straight_through(z_e, z_e), hvq.frequent_codes(np.ones(4), num_frequent=2)
hvq.metrics.perplexity(np.array([1, 2])), hvq.metrics.psnr(z_e, z_e), hvq.latents.unit(z_e)
reveal_type(latent.z_bar)  # Array
reveal_type(kept.gains)  # Array | None

quantizer = hvq.HybridQuantizer(mode="projected", dim=2, num_codes=4, codebook_init="kmeans")
reveal_type(quantizer.init)  # def
rule = hvq.HybridQuantizer(learning="my_package.rules:Rule")
other = hvq.nnx.HybridQuantizer(mode="vq", dim=2, rngs=nnx.Rngs(0))
quantized = other(z_e, mask, train=True)
reveal_type(quantized.loss)  # Array
reveal_type(quantized.metrics.perplexity)  # Array
reveal_type(other.from_codes(np.array([0, 1])))  # Array
options = hvq.LatentOptions(mode="vq")
model = hvq.Autoencoder((8, 8, 1), latent_options=options)

hvq.hybrid_latent(z_e, codes, indices, frequent, mode="hybrid")  # incompatible type "Literal['hybrid']"
hvq.codes_of(z_e, codes, mode="hybrid")  # incompatible type "Literal['hybrid']"
hvq.HybridQuantizer(mode="hybrid")  # incompatible type "Literal['hybrid']"
hvq.nnx.HybridQuantizer(mode="hybrid", rngs=nnx.Rngs(0))  # incompatible type "Literal['hybrid']"
hvq.HybridQuantizer(num_code=4)  # Unexpected keyword argument "num_code"
hvq.HybridQuantizer(dim="4")  # incompatible type "str"
hvq.LatentOptions(mode="hybrid")  # incompatible type "Literal['hybrid']"
hvq.nearest_codes(z_e, codes, "manhattan")  # incompatible type "Literal['manhattan']"
hvq.nothing  # has no attribute "nothing"
"""


# As a user's, but without what the program does not use: our training imports Orbax, matplotlib and the loggers, and
# JAX and Flax import IPython and rich.
CONFIG = """
[mypy]
explicit_package_bases = true
ignore_missing_imports = true
[mypy-hvq_jax.data.*,hvq_jax.export.*,hvq_jax.runs.*,hvq_jax.training.*]
follow_imports = skip
[mypy-IPython.*,filelock.*,matplotlib.*,rich.*]
follow_imports = skip
"""


def test_mypy_agrees_with_the_comments(tmp_path):
    pytest.importorskip("mypy")
    program, config = tmp_path / "program.py", tmp_path / "mypy.ini"
    program.write_text(PROGRAM)
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", f"--config-file={config}", "--cache-dir=/dev/null", str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        if match := re.match(r".*program\.py:(\d+): (?:error|note): (.*)", line):
            found.setdefault(int(match[1]), []).append(match[2])
    expected = {
        number: line.partition("  # ")[2] for number, line in enumerate(PROGRAM.splitlines(), 1) if "  # " in line
    }
    assert set(found) == set(expected), done.stdout + done.stderr
    for number, comment in expected.items():
        assert comment in " ".join(found[number]), (number, found[number])
