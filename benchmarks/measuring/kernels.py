"""Which kernels take a device's time, from a trace of JAX's profiler.

On GPU a kernel has the name that XLA or a library gave it, on TPU and CPU that of XLA's operation. Numbers that tell
copies of a name apart are dropped, so that a row of the table is all of one kind.
"""

import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

# The first that occurs in a name says what the kernel does.
_WORKS = {
    "products and convolutions": "conv|gemm|xmma|cutlass|cudnn|dot|winograd|fprop|dgrad|wgrad|custom-call|ynn",
    "reductions": "reduce|argmin|argmax|sort|softmax",
    "copies": "transpose|copy|memcpy|memset|pad|concatenate|slice|gather|scatter",
}
_CONTROL = re.compile("while|conditional|call")  # their time is that of the operations inside
_LONGEST_NAME = 60


@dataclasses.dataclass(frozen=True)
class Kernel:
    """All kernels of one name."""

    name: str
    calls: int
    seconds: float  # in all, over all devices

    @property
    def work(self) -> str:
        """What it does, as far as its name says."""
        found = (work for work, names in _WORKS.items() if re.search(names, self.name, re.IGNORECASE))
        return next(found, "elementwise and others")


def trace(call: Callable[[], Any]) -> list[Kernel]:
    """Return the kernels of a call by name, the longest first; `call` waits for its result."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            call()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return by_name(_kernels(ProfileData.from_file(str(path))))


def by_name(kernels: Iterable[tuple[str, float]]) -> list[Kernel]:
    """Sum (name, seconds) by name, without numbers that tell copies apart.

    >>> [(kernel.name, kernel.calls) for kernel in by_name([("fusion.1", 1.0), ("dot_3", 5.0), ("fusion_22", 2.0)])]
    [('dot', 1), ('fusion', 2)]
    """
    found: dict[str, list[float]] = {}
    for name, seconds in kernels:
        found.setdefault(re.sub(r"([._]\d+)+$", "", name)[:_LONGEST_NAME], []).append(seconds)
    sums = [Kernel(name, len(seconds), sum(seconds)) for name, seconds in found.items()]
    return sorted(sums, key=lambda kernel: -kernel.seconds)


def by_work(kernels: Iterable[Kernel]) -> dict[str, float]:
    """Return the share of the kernels' time by what they do, the largest first."""
    sums: dict[str, float] = {}
    for kernel in kernels:
        sums[kernel.work] = sums.get(kernel.work, 0.0) + kernel.seconds
    whole = sum(sums.values())
    return {work: seconds / whole for work, seconds in sorted(sums.items(), key=lambda item: -item[1])}


def _kernels(profile: Any) -> Iterator[tuple[str, float]]:
    """Yield name and seconds of each kernel: those on the lines of devices, or on CPU XLA's operations."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if re.match("/device:(GPU|TPU)", plane.name)]
    for plane in devices:
        for line in plane.lines:
            if line.name.startswith("Stream") or line.name == "XLA Ops":
                yield from ((event.name, 1e-9 * event.duration_ns) for event in line.events)
    for plane in planes if not devices else ():
        for line in plane.lines:
            for event in line.events:
                if "hlo_op" in dict(event.stats) and not _CONTROL.match(event.name):
                    yield event.name, 1e-9 * event.duration_ns
