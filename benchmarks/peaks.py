"""FLOP/s of dense products that a device can reach: published, or measured with one large product."""

import math
import re
import time

import jax
import jax.numpy as jnp

from hvq_jax.networks.layers import COMPUTE_DTYPES

# Kind of device, as JAX spells it -> TFLOP/s of dense products in float32 (see above) and bfloat16; None: it has none.
# NVIDIA's data sheets of H100, H200, A100, L4 and V100 (half of what they give "with sparsity"; H100 and H200 from the
# Hopper architecture's white paper), Google Cloud's pages on TPU v4, v5e, v5p and v6e.
PEAKS: dict[str, tuple[float | None, float | None]] = {
    r"NVIDIA H100 80GB HBM3": (494.7, 989.4),  # SXM
    r"NVIDIA H100 PCIe": (378.0, 756.0),
    r"NVIDIA H200": (494.7, 989.4),
    r"NVIDIA A100-(SXM4|PCIE)-(40|80)GB|NVIDIA A100 80GB PCIe": (156.0, 312.0),
    r"NVIDIA L4": (60.0, 121.0),
    r"Tesla V100-SXM2-.*GB": (15.7, None),
    r"Tesla V100-PCIE-.*GB": (14.0, None),
    r"TPU v4": (275.0, 275.0),
    r"TPU v5 lite|TPU v5e": (197.0, 197.0),
    r"TPU v5|TPU v5p": (459.0, 459.0),
    r"TPU v6 lite|TPU v6e": (918.0, 918.0),
}


def published_peak(device_kind: str, dtype: str) -> float | None:
    """FLOP/s of one device, None where the table has none. A part of a device (MIG) is another kind."""
    for kind, peaks in PEAKS.items():
        if re.fullmatch(kind, device_kind):
            peak = peaks[COMPUTE_DTYPES.index(dtype)]
            return None if peak is None else 1e12 * peak
    return None


def measured_peak(dtype: str, side: int, repetitions: int = 5) -> float:
    """FLOP/s that a product of two square matrices reaches on the first device, in the best of the repetitions."""
    a = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    shortest = math.inf
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        shortest = min(shortest, time.perf_counter() - start)
    return 2 * side**3 / shortest
