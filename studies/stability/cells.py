"""Each gradient of the projection with each codebook, and two long runs from the reference's initialisation."""

from studies.cells import Cell

GRADIENTS = ("both", "both_through_st", "encoder", "straight_through")
SEEDS = (0, 1, 2)
NUM_STEPS = 1400
LONG = 40 * 429  # forty epochs of 55,000 images

# Changes to configs/reference.py. Codes of unit norm have no length, so vectors must not be committed to them.
CODEBOOKS: dict[str, tuple[str, ...]] = {
    "gradient": ("codebook.learning=gradient", "codebook.init=uniform"),
    "ema": ("codebook.learning=ema", "codebook.init=data"),
    "spherical": (
        "codebook.learning=ema",
        "codebook.unit_norm=codes",
        "codebook.init=data",
        "loss.commitment_target=projection",
    ),
}


def cells() -> list[Cell]:
    """Return the cells: the first seed, the long runs, the other seeds, so that a table is complete early.

    If the codes are not parameters, `both` equals `encoder` (there is a test) and is left out.
    """
    long = [_cell("gradient", gradient, seed=0, num_steps=LONG) for gradient in ("both", "both_through_st")]
    return [*_grid(SEEDS[0]), *long, *(cell for seed in SEEDS[1:] for cell in _grid(seed))]


def _grid(seed: int) -> list[Cell]:
    return [
        _cell(codebook, gradient, seed, NUM_STEPS)
        for codebook in CODEBOOKS
        for gradient in GRADIENTS
        if codebook == "gradient" or gradient != "both"
    ]


def _cell(codebook: str, gradient: str, seed: int, num_steps: int) -> Cell:
    return Cell(
        config="configs/reference.py:projected",
        labels={"codebook": codebook, "gradient": gradient, "steps": f"{num_steps:,}"},
        seed=seed,
        options=(
            "latent.dim=32",
            f"latent.projection_gradient={gradient}",
            *CODEBOOKS[codebook],
            f"autoencoder.num_steps={num_steps}",
        ),
    )
