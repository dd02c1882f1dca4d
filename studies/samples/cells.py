"""Both stages of every latent, and what else is needed to compare their samples: a transformer, and lengths left free.

With the default codebook lengths are nearly those of the codes, and there is less in them to model (`studies/rates`).
Codes of length 1, and a commitment that leaves lengths free, put more into them.

Small priors and few epochs, for seeds to be compared; and once each what `configs/fashion_mnist.py` trains by default.
"""

from studies.cells import Cell

_CODEBOOKS = {
    "default": (),
    "spherical": ("codebook.method=spherical", "loss.commitment_target=projection"),
}

# As large as each other, to 4 %: 385,000 and 393,000 parameters for vq, 414,000 and 447,000 for projected.
_SMALL = {
    "pixelcnn": ("prior.width=32", "prior.num_layers=8"),
    "transformer": ("prior.width=64", "prior.num_layers=4"),
}
_SHORT = (
    "autoencoder.num_epochs=2",
    "prior.num_epochs=3",
    "prior.learning_rate=2e-3",
    "prior.head_width=256",
)

# (latent, codebook, prior)
_COMPARED = (
    ("vq", "default", "pixelcnn"),
    ("projected", "default", "pixelcnn"),
    ("frequency", "default", "pixelcnn"),
    ("combined", "default", "pixelcnn"),
    ("projected", "spherical", "pixelcnn"),
    ("combined", "spherical", "pixelcnn"),
    ("vq", "default", "transformer"),
    ("projected", "default", "transformer"),
)


def cells() -> list[Cell]:
    """Seed by seed, then the long ones."""
    short = [
        _cell(*labels, epochs="2 + 3", seed=seed, options=(*_SHORT, *_SMALL[labels[-1]]))
        for seed in (0, 1, 2)
        for labels in _COMPARED
    ]
    long = [_cell(*labels, epochs="20 + 20", seed=0, options=()) for labels in _COMPARED]
    dropped = [
        _cell(latent, "default", "transformer, dropout 0.1", epochs="20 + 20", seed=0, options=("prior.dropout=0.1",))
        for latent in ("vq", "projected")
    ]
    return [*short, *long, *dropped]


def _cell(latent: str, codebook: str, prior: str, epochs: str, seed: int, options: tuple[str, ...]) -> Cell:
    return Cell(
        config=f"configs/fashion_mnist.py:{latent}",
        labels={"latent": latent, "codebook": codebook, "prior": prior, "epochs": epochs},
        seed=seed,
        stage="all",
        options=(
            f"prior.name={prior.split(',')[0]}",
            "sampling.classify=False",  # they are judged by more images
            *_CODEBOOKS[codebook],
            *options,
        ),
    )
