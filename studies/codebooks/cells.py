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
    ("vq", "diveq", ("codebook.learning=diveq", "latent.estimator=diveq")),
    ("vq", "residual, depth 2", ("codebook.family=residual", "codebook.depth=2")),
    ("vq", "residual, depth 4", ("codebook.family=residual", "codebook.depth=4")),
    ("vq", "grouped, 2 groups", ("codebook.family=grouped",)),
    ("vq", "fsq 8×8×8", ("codebook.family=fsq",)),
    ("vq", "lfq 9 bits, entropy term 0.1", ("codebook.family=lfq", "loss.entropy_weight=0.1")),
    ("vq", "bsq 9 bits, entropy term 0.1", ("codebook.family=bsq", "loss.entropy_weight=0.1")),
    ("vq", "residual fsq 8×8×8, depth 2", ("codebook.family=residual_fsq", "codebook.depth=2")),
    ("projected", "ema, data init", ()),
    ("projected", "ema, assignment projection", ("codebook.assignment=projection",)),
    ("projected", "ema, 4 groups", ("latent.projection_groups=4",)),
    ("projected", "ema, commitment 0.25", ("loss.commitment_weight=0.25", "loss.projection_weight=0.25")),
    ("projected", "ema, commitment to P", ("loss.commitment_target=projection", "loss.projection_weight=0.1")),
    ("projected", "spherical", ("codebook.unit_norm=codes", "loss.commitment_target=projection")),
)


def _cell(latent: str, name: str, options: tuple[str, ...], seed: int = 0) -> Cell:
    return Cell(
        config=f"configs/default.py:{latent}",
        labels={"latent": latent, "codebook": name},
        seed=seed,
        options=("data.name=fashion_mnist", "autoencoder.num_epochs=1", *_WEIGHTS, *options),
    )


def cells() -> list[Cell]:
    """Return the cells, in the order of the table; the last is the second seed of a row, trained with later ones."""
    return [*(_cell(*method) for method in _METHODS), _cell("vq", "ema, data init, seed 1", (), seed=1)]
