"""The course report's comparison: each latent with the report's settings and with the defaults, and S varied."""

import math

from studies.cells import Cell

FULL = (256, 100)  # D and epochs as in the report
SMALL = (32, 1)  # D and epochs of the comparison that CPU cores can train
SEEDS = (0, 1, 2)
NUM_CODES = 512
NUM_POINTS = 2000  # largest number of points kept of a curve
NUM_IMAGES = 16

# Networks of other sizes than the default, of width D: for a CPU, less than a third of the time of a step.
_NETWORKS = {SMALL: ("network.width=16", "network.num_blocks=1")}

_STEPS_PER_EPOCH = 55_000 // 128
_LEAST_EVALUATIONS = 5  # on the validation split, for the curves of short trainings

PRESETS = {
    "reference": "configs/reference.py",  # gradient-trained codebook, β = 1, Adam 2e-4
    "default": "configs/default.py",  # codebook of moving averages with revival, β = 0.25, Adam 3e-3
}
REPORTED = (502, 412, 312)  # values of S in the report, besides S = K, which is `vq`
FREQUENT = (0, 32, 64, 128, 192, 256, 312, 362, 412, 462, 502)  # values of S of the continuous graph, besides S = K
MASSES = (0.25, 0.5, 0.75, 0.9)

_Latent = tuple[str, str, tuple[str, ...]]  # mode, name in the table, options


def name_size(dim: int, num_epochs: int) -> str:
    """Return the name of the folder of a size, in the study's folder and in that of the runs; "" for the full size."""
    known = {FULL: "", SMALL: "small"}
    return known.get((dim, num_epochs), f"trials/dim_{dim}-epochs_{num_epochs}")


def name_frequency(num_frequent: int) -> str:
    """Return the name of the latent `frequency` with S frequent codes; S = K is `vq`, bit for bit."""
    return "vq" if num_frequent == NUM_CODES else f"frequency S={num_frequent}"


def name_mass(mass: float) -> str:
    """Return the name of the latent `frequency` whose frequent codes have a share `mass` of all assignments."""
    return f"frequency m={mass:g}"


def _of_count(num_frequent: int) -> _Latent:
    return "frequency", name_frequency(num_frequent), (f"latent.num_frequent={num_frequent}",)


# In the order of the table
_COMPARED: tuple[_Latent, ...] = (
    ("vq", "vq", ()),
    ("projected", "projected", ()),
    *(_of_count(s) for s in REPORTED),
    ("combined", "combined S=312", ("latent.num_frequent=312",)),
)
_BY_COUNT = tuple(_of_count(s) for s in FREQUENT if s not in REPORTED)
_BY_MASS: tuple[_Latent, ...] = tuple(("frequency", name_mass(m), (f"latent.frequent_mass={m}",)) for m in MASSES)


def cells(dim: int = FULL[0], num_epochs: int = FULL[1]) -> list[Cell]:
    """Return the cells, the most telling ones first: all latents of the report, then S varied, then further seeds.

    Args:
        dim: D, the width of the latent, and of both networks but in the small size.
        num_epochs: number of epochs. Steps are logged in intervals of one length, of which there are at most
            `NUM_POINTS`, and the validation split is evaluated about 20 times, or 5 to 19 times in short trainings,
            after whole intervals.
    """
    num_steps = num_epochs * _STEPS_PER_EPOCH
    interval = math.ceil(num_steps / NUM_POINTS)
    evaluations = min(max(num_epochs, _LEAST_EVALUATIONS), 20)
    between_evaluations = max(num_steps // evaluations // interval, 1) * interval
    shared = (
        "data.name=fashion_mnist",
        f"latent.dim={dim}",
        f"latent.num_codes={NUM_CODES}",
        "autoencoder.batch_size=128",
        f"autoencoder.num_epochs={num_epochs}",
        f"autoencoder.eval_every_steps={between_evaluations}",
        *_NETWORKS.get((dim, num_epochs), ()),
    )

    def cell(preset: str, latent: _Latent, seed: int) -> Cell:
        mode, name, options = latent
        return Cell(
            config=f"{PRESETS[preset]}:{mode}",
            labels={"preset": preset, "latent": name},
            seed=seed,
            options=(*shared, *options),
            log_every_steps=interval,
            num_points=NUM_POINTS,
            num_images=NUM_IMAGES if seed == SEEDS[0] and latent in _COMPARED else 0,
        )

    def of_all(latents: tuple[_Latent, ...], seed: int) -> list[Cell]:
        presets = PRESETS if latents is _COMPARED else reversed(PRESETS)  # few codes are in use with the first
        return [cell(preset, latent, seed) for preset in presets for latent in latents]

    first, *others = SEEDS
    return [
        *of_all(_COMPARED, first),
        *of_all(_BY_COUNT, first),
        *(found for seed in others for found in of_all(_COMPARED, seed)),
        *of_all(_BY_MASS, first),
        *(found for seed in others for found in of_all((*_BY_COUNT, *_BY_MASS), seed)),
    ]
