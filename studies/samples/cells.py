"""Both stages of each latent; also with a transformer, and with codes of length 1.

With the default codebook, lengths are close to those of the codes and leave less to model (`studies/rates`). Codes of
length 1, with a commitment that leaves lengths free, put more information into them.
"""

from studies.cells import Cell

_CODEBOOKS = {
    "default": (),
    "spherical": ("codebook.unit_norm=codes", "loss.commitment_target=projection"),
}

# The same size within 8 %: 385,000 and 393,000 parameters for vq, 414,000 and 447,000 for projected.
_PRIORS = {
    "pixelcnn": ("prior.width=32", "prior.num_layers=8"),
    "transformer": ("prior.width=64", "prior.num_layers=4"),
}

# (latent, codebook, prior)
_SAMPLED = (
    ("vq", "default", "pixelcnn"),
    ("projected", "default", "pixelcnn"),
    ("frequency", "default", "pixelcnn"),
    ("combined", "default", "pixelcnn"),
    ("projected", "spherical", "pixelcnn"),
    ("combined", "spherical", "pixelcnn"),
    ("vq", "default", "transformer"),
    ("projected", "default", "transformer"),
)
# Trained more than once, to compare drawn lengths with mean lengths.
_REPEATED = tuple(labels for labels in _SAMPLED if labels[0] in ("projected", "combined") and labels[2] == "pixelcnn")


def cells() -> list[Cell]:
    """Return all cells with seed 0, then some with other seeds."""
    return [
        *(_cell(*labels, seed=0) for labels in _SAMPLED),
        *(_cell(*labels, seed=seed) for seed in (1, 2) for labels in _REPEATED),
    ]


def _cell(latent: str, codebook: str, prior: str, seed: int) -> Cell:
    return Cell(
        config=f"configs/fashion_mnist.py:{latent}",
        labels={"latent": latent, "codebook": codebook, "prior": prior},
        seed=seed,
        stage="all",
        options=(
            "autoencoder.num_epochs=2",
            *_CODEBOOKS[codebook],
            f"prior.name={prior}",
            *_PRIORS[prior],
            "prior.head_width=256",
            "prior.num_epochs=3",
            "prior.learning_rate=2e-3",
            "sampling.classify=False",  # `evaluate` uses more images
        ),
    )
