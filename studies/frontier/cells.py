"""The cells of the frontier: trainings of an autoencoder, and the points of rate and distortion made from each.

One training serves every number of bins, or every step of residuals, of its seed: a point fits its tables, trains its
prior, and fine-tunes its decoder on what is transmitted. Cells are listed in the order in which they are made.
"""

import dataclasses
import re

from hvq_jax.training.options import FitOptions
from studies.cells import Cell

SEEDS = (0, 1, 2)
BASE_CODES = 128  # K of the hybrid latents: their K·G are then the K of `vq`

_NUM_BINS = (1, 4, 16, 8, 64, 2, 32)  # in the order in which they are made
_FEW_BINS = (1, 4, 16, 64)
_CODES_FIRST = (8,)  # G for which the other order of transmission is measured
_STEPS = (1.6, 0.8, 0.4, 0.2, 0.1)
_STEP = 0.4  # of the residuals where S varies
_BINS = 8  # G where S varies
_FREQUENT = (16, 32, 96, 112)  # S, besides half of K


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of networks and trainings, the same for all cells of a study."""

    name: str
    data: tuple[str, ...]  # options of the data set
    latent_dim: int
    autoencoder: tuple[str, ...]  # options of networks and training
    prior: tuple[str, ...]
    fine_tuning: FitOptions  # of the decoder
    num_images: int  # test images that everything is measured on, the first ones
    is_selection: bool = False  # only a selection of the trainings, with few points each


# Trainings of a minute or two on one core of a CPU.
SMALL = Size(
    name="small",
    data=("data.name=fashion_mnist",),
    latent_dim=32,
    autoencoder=(
        "network.width=16",
        "network.num_blocks=1",
        "autoencoder.batch_size=64",
        "autoencoder.num_steps=1000",
        "autoencoder.eval_every_steps=500",
    ),
    prior=(
        "prior.width=32",
        "prior.num_layers=4",
        "prior.head_width=64",
        "prior.num_components=4",
        "prior.batch_size=32",
        "prior.num_steps=1000",
        "prior.learning_rate=0.003",
        "prior.eval_every_steps=1000",
        "prior.checkpoint_every_steps=250",
        "prior.log_every_steps=250",
    ),
    fine_tuning=FitOptions(batch_size=64, num_epochs=1, learning_rate=0.001, log_every_steps=200),
    num_images=2048,
)

# For an accelerator: the default networks, trained as long as in `defaults` and `samples`.
FULL = Size(
    name="full",
    data=("data.name=fashion_mnist",),
    latent_dim=64,
    autoencoder=("network.width=128", "autoencoder.num_epochs=20", "autoencoder.steps_per_dispatch=50"),
    prior=("prior.num_epochs=20", "prior.steps_per_dispatch=50"),
    fine_tuning=FitOptions(num_epochs=1, learning_rate=0.001, steps_per_dispatch=50),
    num_images=10_000,
)

# Patches of colour photographs; see photographs.py.
COLOUR = dataclasses.replace(
    SMALL, name="colour", data=("data.name=image_arrays",), num_images=10_000, is_selection=True
)

SIZES = {size.name: size for size in (SMALL, FULL, COLOUR)}


@dataclasses.dataclass(frozen=True)
class Point:
    """One way to transmit the latents of a trained autoencoder: a point of rate and distortion."""

    curve: str  # the line of the plot that it is on
    value: str  # its place on that line, such as "G=4"
    options: tuple[str, ...] = ()  # of its tables and prior
    codes_first: bool = False  # also train a prior of the other order of transmission

    @property
    def file_name(self) -> str:
        """The name of its files, behind that of its training."""
        return re.sub(r"[^a-zA-Z0-9]+", "_", self.value)


@dataclasses.dataclass(frozen=True)
class Training:
    """One training of an autoencoder, with the points that are made from it."""

    cell: Cell
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """The name of its files."""
        return self.cell.name

    def name_point(self, point: Point) -> str:
        """Return the name of the files of a point."""
        return f"{self.name}-{point.file_name}"


def trainings(size: Size = SMALL) -> list[Training]:
    """Return all trainings of a size, the most important first."""
    if size.is_selection:
        return _selection(size)
    first = [
        training
        for seed in SEEDS
        for training in (*(_vq(size, seed, k) for k in (64, 128, 256, 512, 1024)), _projected(size, seed))
    ]
    masked = [training for seed in SEEDS for training in (_frequency(size, seed), _combined(size, seed))]
    return [
        *first,
        *(_vq(size, seed, k) for seed in SEEDS for k in (2048, 4096)),
        *masked,
        *(_residual(size, k, depth) for k, depth in ((16, 2), (16, 3), (16, 4), (64, 2), (128, 2))),
        *(_two_levels(size, bits) for bits in (1, 2, 3, 4, 5, 6)),
        *(_fsq(size, levels) for levels in ((4, 4, 4), (8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5))),
        *(_simvq(size, k) for k in (64, 256, 1024, 4096)),
        *(_projected(size, 0, groups=groups) for groups in (2, 4, 8)),
        _autoencoder(size),
        *(_varied(size, seed, mode, s) for seed in SEEDS for mode in ("frequency", "combined") for s in _FREQUENT),
        *(_vq(size, seed, 8192) for seed in SEEDS),
        *(_projected(size, seed, num_codes=512) for seed in SEEDS),
    ]


def _selection(size: Size) -> list[Training]:
    """Return trainings of each latent of the report and of the plain autoencoder, with few points each.

    With one seed the codes of `projected` and `combined` beat as many of `vq`, which one training proves nothing by: so
    these have three seeds, without the most codes, whose prior takes longer than all of the others together.
    """
    made = [_projected(size, 0), _frequency(size, 0), _combined(size, 0), _autoencoder(size)]
    kept = ("G=1", "G=4", "G=16", "step=0.8", "step=0.4", "step=0.2")
    planned = [
        *(_vq(size, 0, k) for k in (64, 512, 4096)),
        *made,
        _vq(size, 0, BASE_CODES),
        *(
            training
            for seed in SEEDS[1:]
            for training in (
                *(_vq(size, seed, k) for k in (64, BASE_CODES, 512)),
                _projected(size, seed),
                _combined(size, seed),
            )
        ),
    ]
    few = (tuple(point for point in each.points if point.curve == "vq" or point.value in kept) for each in planned)
    return [dataclasses.replace(each, points=points) for each, points in zip(planned, few, strict=True)]


def _training(
    size: Size, seed: int, latent: str, sizes: str, mode: str, options: tuple[str, ...], points: tuple[Point, ...]
) -> Training:
    cell = Cell(
        config=f"configs/default.py:{mode}",
        labels={"size": size.name, "latent": latent, "sizes": sizes},
        seed=seed,
        options=(*size.data, f"latent.dim={size.latent_dim}", "parallel=jit", *size.autoencoder, *options),
        log_every_steps=50,
    )
    return Training(cell, points)


def _vq(size: Size, seed: int, num_codes: int) -> Training:
    sizes = f"K={num_codes}"
    return _training(size, seed, "vq", sizes, "vq", (f"latent.num_codes={num_codes}",), (Point("vq", sizes),))


def _bins(curve: str, numbers: tuple[int, ...], codes_first: tuple[int, ...] = ()) -> tuple[Point, ...]:
    return tuple(Point(curve, f"G={g}", (f"prior.num_bins={g}",), codes_first=g in codes_first) for g in numbers)


def _steps(curve: str) -> tuple[Point, ...]:
    return tuple(Point(curve, f"step={step:g}", (f"prior.residual_step={step:g}",)) for step in _STEPS)


def _projected(size: Size, seed: int, num_codes: int = BASE_CODES, groups: int = 1) -> Training:
    name = "projected" if groups == 1 else f"projected, {groups} groups"
    curve = name if num_codes == BASE_CODES else f"{name}, K={num_codes}"
    options = (f"latent.num_codes={num_codes}", f"latent.projection_groups={groups}")
    plain = groups == 1 and num_codes == BASE_CODES
    points = _bins(curve, _NUM_BINS, codes_first=_CODES_FIRST) if plain else _bins(curve, _FEW_BINS)
    return _training(size, seed, name, f"K={num_codes}", "projected", options, points)


def _frequency(size: Size, seed: int) -> Training:
    return _with_mask(size, seed, "frequency", BASE_CODES // 2, _steps("frequency"))


def _combined(size: Size, seed: int) -> Training:
    return _with_mask(size, seed, "combined", BASE_CODES // 2, _bins("combined", _FEW_BINS))


def _varied(size: Size, seed: int, mode: str, num_frequent: int) -> Training:
    curve, value = f"{mode}, S varied", f"S={num_frequent}"
    option = {"frequency": f"prior.residual_step={_STEP}", "combined": f"prior.num_bins={_BINS}"}[mode]
    return _with_mask(size, seed, mode, num_frequent, (Point(curve, value, (option,)),), name=curve)


def _with_mask(
    size: Size, seed: int, mode: str, num_frequent: int, points: tuple[Point, ...], name: str | None = None
) -> Training:
    options = (f"latent.num_codes={BASE_CODES}", f"latent.num_frequent={num_frequent}")
    return _training(size, seed, name or mode, f"K={BASE_CODES}, S={num_frequent}", mode, options, points)


def _autoencoder(size: Size) -> Training:
    """Without frequent codes the decoder sees z_e itself."""
    options = (f"latent.num_codes={BASE_CODES}", "latent.num_frequent=0")
    return _training(size, 0, "autoencoder", "", "frequency", options, _steps("autoencoder"))


def _residual(size: Size, num_codes: int, depth: int) -> Training:
    sizes = f"K={num_codes}, depth {depth}"
    options = ("codebook.family=residual", f"latent.num_codes={num_codes}", f"codebook.depth={depth}")
    return _training(size, 0, "residual", sizes, "vq", options, (Point("residual", sizes),))


def _two_levels(size: Size, bits: int) -> Training:
    sizes = f"K={BASE_CODES}, G={2**bits}"
    options = (
        "codebook.family=studies.frontier.two_levels:TwoLevels",
        f"latent.num_codes={BASE_CODES}",
        "codebook.depth=2",
        f"codebook.bits={bits}",
    )
    return _training(size, 0, "residual, K and G", sizes, "vq", options, (Point("residual, K and G", f"G={2**bits}"),))


def _fsq(size: Size, levels: tuple[int, ...]) -> Training:
    sizes = "×".join(map(str, levels))
    options = ("codebook.family=fsq", f"codebook.levels={levels}")
    return _training(size, 0, "fsq", sizes, "vq", options, (Point("fsq", sizes),))


def _simvq(size: Size, num_codes: int) -> Training:
    sizes = f"K={num_codes}"
    options = ("codebook.learning=simvq", f"latent.num_codes={num_codes}")
    return _training(size, 0, "simvq", sizes, "vq", options, (Point("simvq", sizes),))
