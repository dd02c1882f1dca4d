"""Peak FLOP/s of dense products on a device: published, or measured with one large product."""

import math
import re
import time

import jax
import jax.numpy as jnp

from hvq_jax.networks.layers import COMPUTE_DTYPES

# Kind of device, as reported by JAX -> TFLOP/s of dense products in float32 (on NVIDIA GPUs that have TF32 and on TPUs,
# what JAX's default precision uses instead) and in bfloat16; None: not supported. Sources: NVIDIA's data sheets of
# H100, H200, A100, L4 and V100 (half of the values "with sparsity"; H100 and H200 from the white paper on the Hopper
# architecture), and Google Cloud's pages on TPU v4, v5e, v5p and v6e.
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
    """Return the FLOP/s of one device, or None if not in the table. A part of a device (MIG) is a different kind."""
    for kind, peaks in PEAKS.items():
        if re.fullmatch(kind, device_kind):
            peak = peaks[COMPUTE_DTYPES.index(dtype)]
            return None if peak is None else 1e12 * peak
    return None


def measured_peak(dtype: str, side: int, repetitions: int = 5) -> float:
    """Return the best FLOP/s, over repetitions, of a product of two square matrices on the first device."""
    a = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    shortest = math.inf
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        shortest = min(shortest, time.perf_counter() - start)
    return 2 * side**3 / shortest
