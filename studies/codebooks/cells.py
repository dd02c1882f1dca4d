"""Codebook methods compared: changes to the default config, one epoch, one seed.

The weights of the loss are 1, as in the report, unless a row sets others.
"""

from studies.cells import Cell

_WEIGHTS = ("loss.commitment_weight=1.0", "loss.projection_weight=1.0")

# (latent, name in the table, changes to configs/default.py)
_METHODS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("vq", "gradient, uniform init", ("codebook.learning=gradient", "codebook.init=uniform")),
    ("vq", "gradient, data init", ("codebook.learning=gradient",)),
    ("vq", "gradient, k-means init", ("codebook.learning=gradient", "codebook.init=kmeans")),
    ("vq", "simvq, random init", ("codebook.learning=simvq", "codebook.init=uniform")),
    ("vq", "simvq, data init", ("codebook.learning=simvq",)),
    ("vq", "ema, data init", ()),
    ("vq", "ema, k-means init", ("codebook.init=kmeans",)),
    ("vq", "ema, no revival", ("codebook.revive_below=0",)),
    ("vq", "ema, uniform init, no revival", ("codebook.init=uniform", "codebook.revive_below=0")),
    ("vq", "ema, normalized", ("codebook.unit_norm=both",)),
    ("vq", "ema, assignment cosine", ("codebook.assignment=cosine",)),
    ("vq", "ema, rotation trick", ("latent.estimator=rotation",)),
    ("vq", "ema, entropy term 0.1", ("loss.entropy_weight=0.1",)),
    ("vq", "ema, commitment 0.25", ("loss.commitment_weight=0.25",)),
    ("vq", "residual, depth 2", ("codebook.family=residual", "codebook.depth=2")),
    ("vq", "residual, depth 4", ("codebook.family=residual", "codebook.depth=4")),
    ("vq", "fsq 8×8×8", ("codebook.family=fsq",)),
    ("projected", "ema, data init", ()),
    ("projected", "ema, assignment projection", ("codebook.assignment=projection",)),
    ("projected", "ema, 4 groups", ("latent.projection_groups=4",)),
    ("projected", "ema, commitment 0.25", ("loss.commitment_weight=0.25", "loss.projection_weight=0.25")),
    ("projected", "ema, commitment to P", ("loss.commitment_target=projection", "loss.projection_weight=0.1")),
    ("projected", "spherical", ("codebook.unit_norm=codes", "loss.commitment_target=projection")),
)


def cells() -> list[Cell]:
    """Return the cells, in the order of the table."""
    return [
        Cell(
            config=f"configs/default.py:{latent}",
            labels={"latent": latent, "codebook": name},
            seed=0,
            options=("data.name=fashion_mnist", "autoencoder.num_epochs=1", *_WEIGHTS, *options),
        )
        for latent, name, options in _METHODS
    ]
