"""The cells of the study: what is varied, and the command line that trains one of them."""

import dataclasses
import itertools
from pathlib import Path

GRADIENTS = ("both", "both_through_st", "encoder", "straight_through")
CODEBOOKS = ("gradient", "ema", "spherical")
SEEDS = (0, 1, 2)
NUM_STEPS = 1400

# Beside the config `reference`. A codebook of unit norm has no length of its own, so nothing may pull vectors to it.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "gradient": ("codebook.method=gradient", "codebook.init=uniform"),
    "ema": ("codebook.method=ema", "codebook.init=data"),
    "spherical": ("codebook.method=spherical", "codebook.init=data", "loss.commitment_target=projection"),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the latent `projected`."""

    gradient: str
    codebook: str
    seed: int
    num_steps: int = NUM_STEPS

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.codebook}-{self.gradient}-{self.seed}-{self.num_steps}"

    def options(self) -> list[str]:
        """Arguments for `train.py`, but for the data and the workdir."""
        keys = (
            "stage=autoencoder",
            f"seed={self.seed}",
            "latent.dim=32",
            f"latent.projection_gradient={self.gradient}",
            *_OPTIONS[self.codebook],
            f"autoencoder.num_steps={self.num_steps}",
            "autoencoder.log_every_steps=1",
            "autoencoder.check_replicas_every_steps=0",
        )
        return ["--config=configs/reference.py:projected", *(f"--config.{key}" for key in keys)]

    def workdir(self, runs: Path) -> Path:
        """Where it is trained."""
        return runs / self.name


def all_cells() -> list[Cell]:
    """Seed by seed, so that every stop leaves a table. `both` is `encoder` where codes are no parameters."""
    kinds = itertools.product(SEEDS, CODEBOOKS, GRADIENTS)
    return [
        Cell(gradient, codebook, seed)
        for seed, codebook, gradient in kinds
        if codebook == "gradient" or gradient != "both"
    ]


def long_cells() -> list[Cell]:
    """Forty epochs of the gradients that are naive, from the reference's initialisation."""
    return [Cell(gradient, "gradient", seed=0, num_steps=40 * 429) for gradient in ("both", "both_through_st")]
