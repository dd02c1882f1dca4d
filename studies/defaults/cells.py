"""The defaults: each latent for two epochs with three seeds, and two runs of twenty epochs."""

from studies.cells import Cell

LATENTS = ("vq", "projected", "frequency", "combined")
SEEDS = (0, 1, 2)


def cells() -> list[Cell]:
    """Return the cells, seed by seed, then the long runs."""
    short = [_cell(latent, seed, dim=64, num_epochs=2) for seed in SEEDS for latent in LATENTS]
    return [*short, *(_cell(latent, seed=0, dim=32, num_epochs=20) for latent in ("projected", "combined"))]


def _cell(latent: str, seed: int, *, dim: int, num_epochs: int) -> Cell:
    return Cell(
        config=f"configs/default.py:{latent}",
        labels={"latent": latent, "D": str(dim), "epochs": str(num_epochs)},
        seed=seed,
        options=("data.name=fashion_mnist", f"latent.dim={dim}", f"autoencoder.num_epochs={num_epochs}"),
    )
