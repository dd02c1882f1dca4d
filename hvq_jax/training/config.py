"""From a config (a ConfigDict, see `configs/default.py`) to plain descriptions of models and training, checked once."""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict

from hvq_jax.assignment import ASSIGNMENTS
from hvq_jax.autoencoder import Autoencoder
from hvq_jax.bottleneck import METHODS, CodebookOptions, LatentOptions
from hvq_jax.data.augment import Augmentation
from hvq_jax.errors import UserError
from hvq_jax.initialisation import INITIALISATIONS
from hvq_jax.latents import ESTIMATORS, MODES, PROJECTION_GRADIENTS
from hvq_jax.layers import COMPUTE_DTYPES
from hvq_jax.losses import COMMITMENT_TARGETS, LossWeights
from hvq_jax.networks import SKIPS
from hvq_jax.priors.heads import GainHead, ResidualHead
from hvq_jax.priors.network import Network
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.sampling import SamplingOptions
from hvq_jax.priors.transformer import Transformer
from hvq_jax.training.latent_data import ContinuousOptions
from hvq_jax.training.loop import FitOptions
from hvq_jax.training.parallel import FORMS

STAGES = ("all", "autoencoder", "prior")

# Keys that may change between the runs of one workdir, since nothing learned depends on them.
FREE_KEYS = (
    "stage",
    "data.data_dir",
    "data.manual_dir",  # the data itself is held to its fingerprint
    "data.memory_gib",
    "prior.latents",  # likewise
    "sampling",
    "autoencoder.log_every_steps",
    "autoencoder.checkpoint_every_steps",
    "autoencoder.keep_checkpoints",
    "autoencoder.check_replicas_every_steps",
    "autoencoder.steps_per_dispatch",  # within rounding
    "prior.log_every_steps",
    "prior.checkpoint_every_steps",
    "prior.keep_checkpoints",
    "prior.check_replicas_every_steps",
    "prior.steps_per_dispatch",  # within rounding
)

_CHOICES: dict[str, tuple[Any, ...]] = {
    "stage": STAGES,
    "data.channels": (0, 1, 3),
    "parallel": FORMS,
    "latent.mode": MODES,
    "latent.projection_gradient": tuple(PROJECTION_GRADIENTS),
    "network.skip": SKIPS,
    "network.compute_dtype": COMPUTE_DTYPES,
    "latent.estimator": tuple(ESTIMATORS),
    "codebook.method": METHODS,
    "codebook.init": tuple(INITIALISATIONS),
    "codebook.assignment": ASSIGNMENTS,
    "loss.commitment_target": COMMITMENT_TARGETS,
    "prior.name": ("pixelcnn", "transformer"),
    "prior.compute_dtype": COMPUTE_DTYPES,
    "autoencoder.schedule": ("constant", "cosine"),
    "prior.schedule": ("constant", "cosine"),
}

# Width and number of layers of a prior, where none are given. On CPU a transformer samples the faster the wider and
# shallower it is (docs/performance.md).
_PRIOR_SIZES = {"pixelcnn": (64, 15), "transformer": (192, 3)}

# Key -> smallest and largest value; inf: no bound.
_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.image_size": (0, math.inf),
    "data.validation_size": (1, math.inf),
    "data.test_size": (1, math.inf),
    "data.memory_gib": (0, math.inf),
    "augment.crop_padding": (0, math.inf),
    "augment.resized_crop_min_scale": (0, 1),
    "latent.num_codes": (1, math.inf),
    "latent.dim": (1, math.inf),
    "latent.frequency_decay": (0, 1),
    "latent.frequent_mass": (0, 1),
    "latent.projection_groups": (1, math.inf),
    "network.num_blocks": (0, math.inf),
    "codebook.decay": (0, 1),
    "codebook.revive_below": (0, math.inf),
    "codebook.depth": (1, 4),
    "loss.codebook_weight": (0, math.inf),
    "loss.commitment_weight": (0, math.inf),
    "loss.projection_weight": (0, math.inf),
    "loss.entropy_weight": (0, math.inf),
    "loss.entropy_temperature": (1e-6, math.inf),
    "prior.width": (1, math.inf),
    "prior.num_layers": (1, math.inf),
    "prior.head_width": (1, math.inf),
    "prior.num_heads": (1, math.inf),
    "prior.num_components": (1, math.inf),
    "prior.label_dropout": (0, 1),
    "prior.dropout": (0, 0.99),
    "prior.num_bins": (1, 256),
    "prior.residual_step": (1e-3, math.inf),  # residuals are kept as so many steps in 16 bits
    "sampling.per_class": (1, math.inf),
    **{
        f"{stage}.{key}": bounds
        for stage in ("autoencoder", "prior")
        for key, bounds in {
            "batch_size": (1, math.inf),
            "num_epochs": (1, math.inf),
            "num_steps": (0, math.inf),
            "learning_rate": (0, math.inf),
            "warmup_steps": (0, math.inf),
            "clip_norm": (0, math.inf),
            "average_decay": (0, 0.999999),
            "log_every_steps": (1, math.inf),
            "eval_every_steps": (0, math.inf),
            "checkpoint_every_steps": (0, math.inf),
            "keep_checkpoints": (1, math.inf),
            "check_replicas_every_steps": (0, math.inf),
            "steps_per_dispatch": (1, math.inf),
        }.items()
    },
}


def _value(config: ConfigDict, key: str) -> Any:
    try:
        for name in key.split("."):
            config = config[name]
    except KeyError:
        raise UserError(f"the config lacks {key}: it is not one of this version") from None
    return config


def validate(config: ConfigDict) -> None:
    """Raises UserError with the key, its value and what is allowed, for the first option that is out of range."""
    for key, choices in _CHOICES.items():
        if (value := _value(config, key)) not in choices:
            raise UserError(f"--config.{key}={value}: choose one of {', '.join(map(str, choices))}")
    # With latents of one's own the file says which codes are frequent.
    masked = config.latent.mode in ("frequency", "combined") and not config.prior.latents
    uses_number = masked and config.latent.frequent_mass is None
    num_frequent = (0, config.latent.num_codes if uses_number else math.inf)
    for key, (low, high) in {**_RANGES, "latent.num_frequent": num_frequent}.items():
        value = _value(config, key)
        if value is not None and not low <= value <= high:
            allowed = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise UserError(f"--config.{key}={value}: must be {allowed}")
    _check_bottleneck(config)
    if config.prior.latents and config.stage != "prior":
        raise UserError("--config.prior.latents=FILE is for a prior without an autoencoder: say --config.stage=prior")
    _check_prior(config)


def _check_prior(config: ConfigDict) -> None:
    """Raises UserError for options of the prior, and of drawing from it, that make no sense together."""
    options, (width, _) = config.prior, _prior_size_of(config)
    if options.name == "transformer" and width % options.num_heads:
        raise UserError(f"--config.prior.num_heads={options.num_heads}: must divide --config.prior.width={width}")
    if options.name == "pixelcnn" and options.dropout:
        raise UserError(f"--config.prior.dropout={options.dropout}: a pixelcnn has none, choose a transformer")
    sampling_options_of(config).check(num_classes=int(options.conditional))
    if config.sampling.guidance and not options.label_dropout:
        raise UserError(
            f"--config.sampling.guidance={config.sampling.guidance}: needs a prior that is not always told the class: "
            "choose a positive --config.prior.label_dropout"
        )


def check_labels(config: ConfigDict, *, has_labels: bool) -> None:
    """Raises UserError where the prior is to be conditional on classes that latents of one's own do not have."""
    if config.prior.conditional and not has_labels:
        raise UserError(
            f"{config.prior.latents} has no train_labels, so no classes: choose --config.prior.conditional=False"
        )


# What each baseline can be combined with: the options that it has no use for stay at these values.
_BASELINES: dict[str, dict[str, Any]] = {
    "codebook.method=fsq": {
        "latent.mode": "vq",
        "latent.estimator": "straight_through",
        "codebook.depth": 1,
        "codebook.assignment": "euclidean",
        "codebook.normalize": False,
        "loss.entropy_weight": 0.0,
    },
    "codebook.depth": {
        "latent.mode": "vq",
        "codebook.method": "ema",
        "codebook.assignment": "euclidean",
        "codebook.normalize": False,
        "loss.entropy_weight": 0.0,
    },
}


def _check_bottleneck(config: ConfigDict) -> None:
    """Raises UserError for options of latent, codebook and loss that make no sense together."""
    latent, codebook = config.latent, config.codebook
    groups = latent.projection_groups
    if latent.dim % groups:
        raise UserError(f"--config.latent.projection_groups={groups}: must divide --config.latent.dim={latent.dim}")
    if codebook.method == "fsq":
        _check_levels(codebook.levels)
        _check_baseline(config, "codebook.method=fsq", "codebook.method=fsq")
    elif codebook.depth > 1:
        _check_baseline(config, "codebook.depth", f"codebook.depth={codebook.depth}")
        if config.stage != "autoencoder":
            raise UserError(
                f"--config.codebook.depth={codebook.depth} gives several codes a position, and there is no prior over "
                "these: choose --config.stage=autoencoder"
            )
    if codebook.assignment == "projection" and latent.mode != "projected":
        raise UserError(
            f"--config.codebook.assignment=projection chooses codes up to their sign, so --config.latent.mode="
            f"{latent.mode}, which shows them to the decoder, cannot use it: choose projected"
        )
    projects = latent.mode in ("projected", "combined")
    if codebook.method == "spherical" and projects and config.loss.commitment_target == "code":
        raise UserError(
            "--config.codebook.method=spherical needs --config.loss.commitment_target=projection where the latent "
            "projects: committed to codes of length 1, encoder outputs would get that length, and the gain nothing"
        )


def _check_levels(levels: tuple[int, ...]) -> None:
    if not levels or not all(isinstance(level, int) and level >= 2 for level in levels):
        raise UserError(f"--config.codebook.levels={levels}: must be whole numbers from 2 on, such as (8, 8, 8)")


def _check_baseline(config: ConfigDict, baseline: str, chosen: str) -> None:
    for key, needed in _BASELINES[baseline].items():
        if (value := _value(config, key)) != needed:
            raise UserError(f"--config.{chosen} needs --config.{key}={needed}, not {value}")


def num_codes_of(config: ConfigDict) -> int:
    """K: the product of the levels where these take the codebook's place."""
    return math.prod(config.codebook.levels) if config.codebook.method == "fsq" else config.latent.num_codes


def latent_options_of(config: ConfigDict) -> LatentOptions:
    """What the decoder sees."""
    latent: LatentOptions = _options(LatentOptions, config, "latent")
    return dataclasses.replace(latent, num_codes=num_codes_of(config))


def autoencoder_of(config: ConfigDict, image_shape: tuple[int, int, int]) -> Autoencoder:
    """The model; UserError if the image sides are not multiples of 4."""
    height, width, _ = image_shape
    if height % 4 or width % 4:
        raise UserError(
            f"images of {config.data.name} are {height}×{width}: both sides must be multiples of 4, since the encoder "
            "halves them twice; resize or crop the data"
        )
    latent = latent_options_of(config)
    codebook: CodebookOptions = _options(CodebookOptions, config, "codebook")
    # Moving averages take the place of the codebook term; without a codebook there is nothing to commit to.
    by_gradient, has_codes = codebook.method == "gradient", codebook.method != "fsq"
    return Autoencoder(
        image_shape=image_shape,
        skip=config.network.skip,
        num_blocks=config.network.num_blocks,
        compute_dtype=config.network.compute_dtype,
        latent=latent,
        codebook=dataclasses.replace(codebook, levels=tuple(codebook.levels)),  # JSON makes it a list
        loss=LossWeights(
            codebook=config.loss.codebook_weight if by_gradient else 0.0,
            commitment=config.loss.commitment_weight if has_codes else 0.0,
            projection=config.loss.projection_weight,
            commitment_target=config.loss.commitment_target,
            entropy=config.loss.entropy_weight,
            entropy_temperature=config.loss.entropy_temperature,
        ),
    )


def _options(kind: Any, config: ConfigDict, section: str) -> Any:
    """A dataclass from a section with exactly its fields: another version's config must not fall back on defaults."""
    differing = set(kind.__dataclass_fields__) ^ set(config[section])
    if differing:
        raise UserError(f"config.{section} is of another version: {', '.join(sorted(differing))} is missing or unknown")
    return kind(**config[section])


def augmentation_of(config: ConfigDict) -> Augmentation:
    """What is done to the autoencoder's training images."""
    return _options(Augmentation, config, "augment")


def prior_of(config: ConfigDict, num_classes: int, latent_shape: tuple[int, int]) -> Prior:
    """The prior over latents `[*latent_shape]`; `num_classes` is the data set's."""
    options = config.prior
    width, num_layers = _prior_size_of(config)
    shared = {
        "num_classes": num_classes if options.conditional else 0,
        "width": width,
        "num_layers": num_layers,
        "compute_dtype": options.compute_dtype,
    }
    network: Network
    if options.name == "transformer":
        network = Transformer(grid=latent_shape, num_heads=options.num_heads, dropout=options.dropout, **shared)
    else:
        network = PixelCNN(**shared)
    return Prior(num_codes_of(config), network, _continuous_head_of(config), options.head_width)


def _prior_size_of(config: ConfigDict) -> tuple[int, int]:
    """Width and number of layers."""
    width, num_layers = _PRIOR_SIZES[config.prior.name]
    return config.prior.width or width, config.prior.num_layers or num_layers


def _continuous_head_of(config: ConfigDict) -> Any:
    """What predicts the continuous part, None where nothing is left of it to predict."""
    options, latent = config.prior, config.latent
    width, _ = _prior_size_of(config)
    sizes = {"width": width, "head_width": options.head_width, "compute_dtype": options.compute_dtype}
    if latent.mode == "frequency":
        step = options.residual_step
        scale = 2 * step  # a step well below the deviation of residuals wastes bits, one well above it loses them
        return ResidualHead(latent.num_codes, latent.dim, step, options.num_components, **sizes, initial_scale=scale)
    if latent.mode == "vq" or options.num_bins == 1:
        return None
    return GainHead(latent.num_codes, options.num_bins, latent.projection_groups, **sizes)


def sampling_options_of(config: ConfigDict) -> SamplingOptions:
    """How samples.png is drawn."""
    return SamplingOptions(**{name: config.sampling[name] for name in SamplingOptions.__dataclass_fields__})


def continuous_options_of(config: ConfigDict) -> ContinuousOptions:
    """How the continuous part is made whole numbers."""
    options = config.prior
    return ContinuousOptions(options.num_bins, options.bins_per_code, options.residual_step)


def fit_options_of(section: ConfigDict) -> FitOptions:
    """The options of the training loop from `config.autoencoder` or `config.prior`."""
    return FitOptions(**{name: section[name] for name in FitOptions.__dataclass_fields__})
