"""The peaks that MFU is relative to: published by the name of the device, or measured."""

import pytest

from benchmarks.measuring.peaks import measured_peak, published_peak


@pytest.mark.parametrize(
    ("kind", "float32", "bfloat16"),
    [
        ("NVIDIA H100 80GB HBM3", 494.7e12, 989.4e12),
        ("NVIDIA H100 PCIe", 378e12, 756e12),
        ("NVIDIA H200", 494.7e12, 989.4e12),
        ("NVIDIA A100-SXM4-40GB", 156e12, 312e12),
        ("NVIDIA A100 80GB PCIe", 156e12, 312e12),
        ("NVIDIA L4", 60e12, 121e12),
        ("Tesla V100-SXM2-16GB", 15.7e12, None),  # no bfloat16 in its tensor cores
        ("TPU v4", 275e12, 275e12),
        ("TPU v5 lite", 197e12, 197e12),
        ("TPU v5", 459e12, 459e12),
        ("TPU v5p", 459e12, 459e12),
        ("TPU v6 lite", 918e12, 918e12),
    ],
)
def test_published_peaks(kind, float32, bfloat16):
    assert published_peak(kind, "float32") == float32
    assert published_peak(kind, "bfloat16") == bfloat16


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L40S", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H200 NVL", ""])
def test_what_is_not_in_the_table_is_not_taken_for_its_neighbour(kind):
    assert published_peak(kind, "float32") is None


def test_a_measured_peak_is_a_rate():
    assert 1e6 < measured_peak("float32", 64) < 1e15
