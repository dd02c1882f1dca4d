"""A cell: one run of `train.py` that a study compares with others."""

import dataclasses
import functools
import re
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run. Cells with the same labels differ by their seed only."""

    config: str  # value of --config, with its argument
    labels: dict[str, str]  # column of the table -> entry
    seed: int
    options: tuple[str, ...]  # dotted keys with their values
    stage: str = "autoencoder"  # or "all"
    log_every_steps: int = 1  # above 1, the curves are means over that many steps
    num_points: int = 0  # largest number of points kept of a curve; 0: all
    num_images: int = 0  # number of test images kept with their reconstructions, at most 16

    @functools.cached_property
    def name(self) -> str:
        """The name of its files."""
        parts = (*self.labels.values(), f"seed {self.seed}")
        return "-".join(re.sub(r"[^a-zA-Z0-9]+", "_", part.replace(",", "")) for part in parts)

    @property
    def arguments(self) -> list[str]:
        """Return the options of `train.py`, without the data, the workdir and what suits the device."""
        keys = (
            f"stage={self.stage}",
            f"seed={self.seed}",
            f"autoencoder.log_every_steps={self.log_every_steps}",
            "autoencoder.check_replicas_every_steps=0",
            *self.options,
        )
        return [f"--config={self.config}", *(f"--config.{key}" for key in keys)]

    def workdir(self, runs: Path) -> Path:
        """Return the folder it is trained in."""
        return runs / self.name
