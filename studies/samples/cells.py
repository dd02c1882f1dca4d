"""Both stages of every latent, and what else is needed to compare their samples: a transformer, and lengths left free.

With the default codebook lengths are nearly those of the codes, and there is less in them to model (`studies/rates`).
Codes of length 1, and a commitment that leaves lengths free, put more into them; there sampled gains are set against
mean gains, with three seeds.
"""

from studies.cells import Cell

_CODEBOOKS = {
    "default": (),
    "spherical": ("codebook.method=spherical", "loss.commitment_target=projection"),
}

# As large as each other, to 6 %: 385,000 and 383,000 parameters for vq, 414,000 and 437,000 for projected.
_PRIORS = {
    "pixelcnn": ("prior.width=32", "prior.num_layers=8", "prior.head_width=256"),
    "transformer": ("prior.width=64", "prior.num_layers=4", "prior.head_width=256", "prior.num_heads=4"),
}

# (latent, codebook, prior)
_FIRST = (
    ("vq", "default", "pixelcnn"),
    ("projected", "default", "pixelcnn"),
    ("frequency", "default", "pixelcnn"),
    ("combined", "default", "pixelcnn"),
    ("vq", "default", "transformer"),
    ("projected", "default", "transformer"),
)
_FREE_LENGTHS = (("projected", "spherical", "pixelcnn"), ("combined", "spherical", "pixelcnn"))


def cells() -> list[Cell]:
    """Those of a single seed, then seed by seed."""
    return [
        *(_cell(*labels, seed=0) for labels in _FIRST),
        *(_cell(*labels, seed=seed) for seed in (0, 1, 2) for labels in _FREE_LENGTHS),
    ]


def _cell(latent: str, codebook: str, prior: str, seed: int) -> Cell:
    return Cell(
        config=f"configs/default.py:{latent}",
        labels={"latent": latent, "codebook": codebook, "prior": prior},
        seed=seed,
        stage="all",
        options=(
            "data.name=fashion_mnist",
            "autoencoder.num_epochs=2",
            *_CODEBOOKS[codebook],
            f"prior.name={prior}",
            *_PRIORS[prior],
            "prior.num_epochs=3",
            "prior.learning_rate=2e-3",
        ),
    )
