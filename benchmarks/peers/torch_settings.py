"""Settings of PyTorch on CPU that change its speed and not its results. This module imports no PyTorch."""

import dataclasses
from typing import Any

from hvq_jax.devices import huge_pages
from hvq_jax.devices.cores import number_of_cores


@dataclasses.dataclass(frozen=True)
class TorchSettings:
    """How PyTorch is run; the defaults are those of a program that sets nothing but the number of threads."""

    threads: int = dataclasses.field(default_factory=number_of_cores)
    channels_last: bool = False  # memory format of images and weights
    fused: bool = False  # Adam in one kernel
    compiled: bool = False  # torch.compile
    wait_policy: str | None = None  # OMP_WAIT_POLICY: whether idle threads spin (ACTIVE) or sleep (PASSIVE)
    huge_pages: bool = False  # for tensors, asked for by PyTorch and by glibc

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that have to be set before the process starts."""
        return {
            **({} if self.wait_policy is None else {"OMP_WAIT_POLICY": self.wait_policy}),
            **({"THP_MEM_ALLOC_ENABLE": "1", **huge_pages.environment()} if self.huge_pages else {}),
        }

    def __str__(self) -> str:
        names = [
            f"{self.threads} thread{'s' * (self.threads > 1)}",
            *(["channels-last"] if self.channels_last else []),
            *(["fused Adam"] if self.fused else []),
            *(["torch.compile"] if self.compiled else []),
            *(["huge pages"] if self.huge_pages else []),
            *([f"OMP_WAIT_POLICY={self.wait_policy}"] if self.wait_policy else []),
        ]
        return ", ".join(names)


def changes(*, trains: bool) -> list[dict[str, Any]]:
    """Return the changes to try, one after the other, each on top of those that helped."""
    return [
        {"channels_last": True},
        *([{"fused": True}] if trains else []),
        {"compiled": True},
        {"huge_pages": True},
        {"wait_policy": "ACTIVE"},
        {"wait_policy": "PASSIVE"},
        *([{"threads": TorchSettings().threads // 2}] if TorchSettings().threads > 1 else []),
    ]
