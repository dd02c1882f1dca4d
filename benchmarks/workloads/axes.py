"""The sizes that are varied, each alone, around a base that is small enough for two cores."""

import dataclasses

from benchmarks.workloads.programs import Sizes

BASE = Sizes()


@dataclasses.dataclass(frozen=True)
class Axis:
    """One size, its values, and the works that are measured at each value."""

    field: str  # of Sizes
    label: str
    values: tuple[int, ...]
    works: dict[str, int]  # with the exponent of the size to which its time is compared
    is_side: bool = False  # of a square, in which case the area is the size

    def size(self, value: int) -> int:
        """Return the size to plot time and memory against: the value, or the area of a square of that side."""
        return value**2 if self.is_side else value

    def name(self, value: int) -> str:
        """Return the name of a value in tables and plots."""
        return f"{value}×{value}" if self.is_side else f"{value:,}"

    def points(self) -> list[tuple[int, Sizes]]:
        """Return each value with all sizes at that point."""
        return [(value, dataclasses.replace(BASE, **{self.field: value})) for value in self.values]


AXES = {
    "batch": Axis("batch", "batch", (32, 64, 128, 256, 512), {"step": 1}),
    "dim": Axis("dim", "D", (32, 64, 128, 256, 512), {"step": 2, "search": 1}),
    "codes": Axis("codes", "K", (128, 256, 512, 1024, 2048, 4096, 8192), {"step": 1, "search": 1}),
    "image": Axis("image", "image", (28, 40, 56, 84, 128), {"step": 1}, is_side=True),
    "grid": Axis("grid", "positions of the prior", (7, 10, 14, 20, 32), {"prior step": 1, "sampling": 1}, is_side=True),
}
