"""Both stages of every latent, and what else is needed to compare their samples: a transformer, and more seeds."""

from studies.cells import Cell

# (latent, prior, seeds): several where sampled gains are set against mean gains.
_PRIORS = (
    ("vq", "pixelcnn", (0,)),
    ("projected", "pixelcnn", (0, 1, 2)),
    ("frequency", "pixelcnn", (0,)),
    ("combined", "pixelcnn", (0, 1, 2)),
    ("vq", "transformer", (0,)),
    ("projected", "transformer", (0,)),
)

# Small enough for a core or two, and about as large as each other (`benchmarks/growth.py` counts parameters).
_NETWORKS = {
    "pixelcnn": ("prior.width=48", "prior.num_layers=8", "prior.head_width=256"),
    "transformer": ("prior.width=96", "prior.num_layers=4", "prior.head_width=256", "prior.num_heads=4"),
}


def cells() -> list[Cell]:
    """The first seed of all, then the others."""
    first = [_cell(latent, prior, seeds[0]) for latent, prior, seeds in _PRIORS]
    return [*first, *(_cell(latent, prior, seed) for latent, prior, seeds in _PRIORS for seed in seeds[1:])]


def _cell(latent: str, prior: str, seed: int) -> Cell:
    return Cell(
        config=f"configs/default.py:{latent}",
        labels={"latent": latent, "prior": prior},
        seed=seed,
        stage="all",
        options=(
            "data.name=fashion_mnist",
            "autoencoder.num_epochs=2",
            f"prior.name={prior}",
            *_NETWORKS[prior],
            "prior.num_epochs=4",
            "prior.learning_rate=2e-3",
        ),
    )
