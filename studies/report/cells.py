"""The report's comparison at full size: each latent with the report's settings and with the defaults."""

import math

from studies.cells import Cell

DIM, NUM_EPOCHS = 256, 100
NUM_POINTS = 2000  # largest number of points kept of a curve
NUM_IMAGES = 16

_STEPS_PER_EPOCH = 55_000 // 128

_PRESETS = {
    "reference": "configs/reference.py",  # gradient-trained codebook, β = 1, Adam 2e-4
    "default": "configs/default.py",  # codebook of moving averages with revival, β = 0.25, Adam 3e-3
}

# (latent, name in the table, options)
_LATENTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("vq", "vq", ()),
    ("projected", "projected", ()),
    *(("frequency", f"frequency S={s}", (f"latent.num_frequent={s}",)) for s in (502, 412, 312, 128)),
    ("combined", "combined S=312", ("latent.num_frequent=312",)),
)


def cells(dim: int = DIM, num_epochs: int = NUM_EPOCHS) -> list[Cell]:
    """Return the 14 cells, in the order of the table; smaller ones for a trial.

    Args:
        dim: D, the width of the latent and of both networks.
        num_epochs: number of epochs. Steps are logged in intervals of one length, of which there are at most
            `NUM_POINTS`, and the validation split is evaluated about 20 times, after whole intervals.
    """
    num_steps = num_epochs * _STEPS_PER_EPOCH
    interval = math.ceil(num_steps / NUM_POINTS)
    between_evaluations = round(max(1, num_epochs // 20) * _STEPS_PER_EPOCH / interval) * interval
    shared = (
        "data.name=fashion_mnist",
        f"latent.dim={dim}",
        "latent.num_codes=512",
        "autoencoder.batch_size=128",
        f"autoencoder.num_epochs={num_epochs}",
        f"autoencoder.eval_every_steps={between_evaluations}",
    )
    return [
        Cell(
            config=f"{config}:{latent}",
            labels={"preset": preset, "latent": name},
            seed=0,
            options=(*shared, *of_latent),
            log_every_steps=interval,
            num_points=NUM_POINTS,
            num_images=NUM_IMAGES,
        )
        for preset, config in _PRESETS.items()
        for latent, name, of_latent in _LATENTS
    ]
