"""What is varied, each alone around a base that is small enough for two cores."""

import dataclasses

from benchmarks.programs import Sizes

BASE = Sizes()


@dataclasses.dataclass(frozen=True)
class Axis:
    """One size, the values it takes, and the works that are measured at each."""

    field: str  # of Sizes
    label: str
    values: tuple[int, ...]
    works: dict[str, int]  # with the power of the size that its time is compared with
    is_side: bool = False  # of a square, whose area is what grows

    def size(self, value: int) -> int:
        """What time and memory are set against: the value, or the area of a square of that side."""
        return value**2 if self.is_side else value

    def name(self, value: int) -> str:
        """Of a value in tables and plots."""
        return f"{value}×{value}" if self.is_side else f"{value:,}"

    def points(self) -> list[tuple[int, Sizes]]:
        """Each value, and all sizes there."""
        return [(value, dataclasses.replace(BASE, **{self.field: value})) for value in self.values]


AXES = {
    "batch": Axis("batch", "batch", (32, 64, 128, 256, 512), {"step": 1}),
    "dim": Axis("dim", "D", (32, 64, 128, 256, 512), {"step": 2, "search": 1}),
    "codes": Axis("codes", "K", (128, 256, 512, 1024, 2048, 4096, 8192), {"step": 1, "search": 1}),
    "image": Axis("image", "image", (28, 40, 56, 84, 128), {"step": 1}, is_side=True),
    "grid": Axis("grid", "positions of the prior", (7, 10, 14, 20, 32), {"prior step": 1, "sampling": 1}, is_side=True),
}
