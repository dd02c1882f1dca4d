"""All options of a run, as one tree of dataclasses, and its conversion to and from a ConfigDict and dictionaries.

Each option is declared once, in the dataclass of its section (`hvq_jax/options.py`). `configs/default.py`, the flags of
the commands, `--help` and docs/options.md all follow from `RunOptions`.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.data.augment import Augmentation
from hvq_jax.data.options import DataOptions
from hvq_jax.devices.parallel import FORMS
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.latents import LATENTS, PROJECTION, Z_E, find_latent
from hvq_jax.losses import LossOptions
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.options import Options, Rule, checked, members, option, redefault, section, type_in_words, walk
from hvq_jax.priors import has_heads, make_network, make_prior
from hvq_jax.priors.options import PriorOptions
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.sampling import SamplingOptions
from hvq_jax.quantizers import CodebookOptions, LatentOptions, Quantizer, check_options, make_quantizer
from hvq_jax.registry import check_choice
from hvq_jax.training.options import FitOptions
from hvq_jax.training.writers import LoggingOptions

STAGES = ("all", "autoencoder", "prior")


@dataclasses.dataclass(frozen=True)
class PriorStageOptions(PriorOptions, FitOptions):
    """The second stage: the prior and its training."""

    latents: str | None = option(
        None, "an .npz of your own latents, in place of an autoencoder's (stage=prior)", changeable=True
    )
    coded_images: int = option(
        256,
        "number of test images to compress and decompress after training, so that summary.json has the bits of a file "
        "besides those of the prior; 0: none",
        low=0,
        changeable=True,
    )
    learning_rate: float = redefault(FitOptions, "learning_rate", 1e-3)
    clip_norm: float = redefault(FitOptions, "clip_norm", 1.0)


PARTS = ("encoder", "decoder", "quantizer", "prior")


def _named_parts(option_name: str, text: str | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts in a text such as "encoder,decoder"; raise ArgumentError if there is no such part."""
    parts = tuple(part.strip() for part in text.split(",")) if text else ()
    if unknown := [part for part in parts if part not in allowed]:
        raise ArgumentError(
            f"{option_name}={text}", f"there is no part {unknown[0]!r}: choose of {', '.join(allowed)}, with commas"
        )
    return parts


@dataclasses.dataclass(frozen=True)
class InitOptions(Options):
    """The run whose weights another starts from; see `init_from.py`."""

    run: str | None = option(
        None,
        "folder of a run whose weights this one starts from where they fit, with --config.init_from=FOLDER for short; "
        "its codes are kept; None: random weights",
        added=True,
    )
    only: str | None = option(
        None,
        "parts of it that are taken, with commas: encoder,decoder,quantizer,prior; None: all that are there",
        added=True,
    )

    def __post_init__(self) -> None:
        """Check the options; raise ArgumentError."""
        super().__post_init__()
        if self.required and self.run is None:
            raise ArgumentError(f"only={self.only}", "is of a run to start from: choose run=FOLDER")

    @property
    def required(self) -> tuple[str, ...]:
        """The parts that the run must have."""
        return _named_parts("only", self.only, PARTS)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that are taken where the run has them."""
        return self.required or PARTS


@dataclasses.dataclass(frozen=True)
class SampleSheetOptions(SamplingOptions):
    """Options of samples.png, which is drawn at the end of the second stage."""

    per_class: int = option(8, "samples per class", low=1, high=10_000, changeable=True)
    classify: bool = option(
        False,
        "train a small classifier on the images and report its accuracy on 100 samples per class",
        changeable=True,
    )


@dataclasses.dataclass(frozen=True)
class RunOptions(Options):
    """All options of a run."""

    seed: int = option(0, "seed of all randomness", low=0, high=2**32 - 1)
    stage: str = option("all", "which stages to run; all: both, one after the other", choices=STAGES, changeable=True)
    parallel: str = option("pmap", "all devices of all hosts share each batch, or one device", choices=FORMS)
    freeze: str | None = option(
        None,
        "parts of the autoencoder, with commas, that stay as init_from gives them: neither their parameters nor their "
        "statistics move; None: all are trained",
        added=True,
    )
    init_from: InitOptions = section(InitOptions)
    data: DataOptions = section(DataOptions)
    augment: Augmentation = section(Augmentation)
    latent: LatentOptions = section(LatentOptions)
    network: NetworkOptions = section(NetworkOptions)
    codebook: CodebookOptions = section(CodebookOptions)
    loss: LossOptions = section(LossOptions)
    autoencoder: FitOptions = section(FitOptions)
    prior: PriorStageOptions = section(PriorStageOptions)
    sampling: SampleSheetOptions = section(SampleSheetOptions)
    logging: LoggingOptions = section(LoggingOptions)

    def __post_init__(self) -> None:
        """Check that the sections are compatible; raise ArgumentError."""
        super().__post_init__()
        check_options(self.latent, self.codebook, self.loss, frequent_codes_given=bool(self.prior.latents))
        try:
            make_network(self.prior, num_classes=0, grid=(1, 1))
        except ArgumentError as error:
            raise _within("prior.", PriorStageOptions, error) from None
        if self.prior.latents and self.stage != "prior":
            raise ArgumentError(
                f"stage={self.stage}", "prior.latents=FILE is for a prior without an autoencoder: choose stage=prior"
            )
        self._check_frozen()
        row = find_latent(self.latent.mode)
        if self.stage != "autoencoder" and self.quantizer.index_shape and (row.uses(PROJECTION) or row.uses(Z_E)):
            raise ArgumentError(
                f"codebook.family={self.codebook.family}",
                f"gives several codes per position, and there is no prior over these with latent.mode="
                f"{self.latent.mode}: choose latent.mode=vq or stage=autoencoder",
            )
        if self.sampling.continuous_temperature != 1 and not has_heads(self.prior, self.latent):
            raise ArgumentError(
                f"sampling.continuous_temperature={self.sampling.continuous_temperature}",
                f"latent.mode={self.latent.mode} with prior.num_bins={self.prior.num_bins} draws codes only",
            )
        if self.sampling.guidance and not self.prior.conditional:
            raise ArgumentError(f"sampling.guidance={self.sampling.guidance}", "needs prior.conditional=True")
        if self.sampling.guidance and not self.prior.label_dropout:
            raise ArgumentError(
                f"sampling.guidance={self.sampling.guidance}",
                "needs a prior that does not always see the class: choose a positive prior.label_dropout",
            )

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that a run trains or evaluates."""
        return ("autoencoder", "prior") if self.stage == "all" else (self.stage,)

    @property
    def frozen(self) -> tuple[str, ...]:
        """The parts of the autoencoder that are not trained."""
        return _named_parts("freeze", self.freeze, PARTS[:-1])

    def _check_frozen(self) -> None:
        if not self.frozen:
            return
        if self.prior.latents:
            raise ArgumentError(f"freeze={self.freeze}", "there is no autoencoder in a run of prior.latents: drop it")
        if len(set(self.frozen)) == len(PARTS[:-1]):
            raise ArgumentError(f"freeze={self.freeze}", "leaves nothing of the autoencoder to train: name fewer parts")
        random = [part for part in self.frozen if self.init_from.run is None or part not in self.init_from.parts]
        if random:
            raise ArgumentError(
                f"freeze={self.freeze}", f"the {random[0]} would stay random: take it from a run, with init_from.run"
            )

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer between encoder and decoder, or that of one's own latents."""
        return make_quantizer(self.latent, self.codebook)

    def autoencoder_model(self, image_shape: tuple[int, int, int]) -> Autoencoder:
        """Return the autoencoder of images of this shape, (H, W, C)."""
        return Autoencoder(image_shape, self.network, self.latent, self.codebook, self.loss)

    def prior_model(self, *, num_classes: int, grid: tuple[int, int]) -> Prior:
        """Return the prior over latents of shape `grid`, (h, w); `num_classes` is the data set's."""
        return make_prior(
            self.prior,
            self.latent,
            num_codes=self.quantizer.num_codes,
            num_classes=num_classes,
            grid=grid,
            codes_per_position=math.prod(self.quantizer.index_shape),
        )


# Options of earlier versions, and their replacements.
RENAMED = {
    "codebook.method": "it is codebook.learning=ema|gradient now; spherical is codebook.unit_norm=codes, and fsq "
    "codebook.family=fsq",
    "codebook.normalize": "it is codebook.unit_norm=both now",
}

KEYS: dict[str, dataclasses.Field[Any]] = dict(walk(RunOptions))

CHANGEABLE = tuple(key for key, field in KEYS.items() if field.metadata["rule"].changeable)
RECORDED = tuple(key for key, field in KEYS.items() if field.metadata["rule"].recorded)


def default_config(mode: str = "projected") -> ConfigDict:
    """Return all options at their defaults, for a config file to change; `mode` is the latent the decoder sees."""
    check_choice("mode", mode, LATENTS)
    config = to_config(RunOptions())
    config.latent.mode = mode
    return config


def to_config(options: Any) -> ConfigDict:
    """Return `options` as a ConfigDict in which options that may be None, or of several types, can be overridden."""
    return _config(type(options), to_dict(options))


def stored_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json with the types of the options, like `to_dict(from_dict(values))`.

    Each option is checked, with the errors of `from_dict`, but not whether they fit together: that imports components
    given by an import path, which may use a device, and a cluster must be joined before that.
    """
    return _values(RunOptions, values, "")


def stored_config(values: Mapping[str, Any]) -> ConfigDict:
    """Return the result of `stored_values` as a ConfigDict, like `to_config(from_dict(values))`."""
    return _config(RunOptions, values)


def _config(kind: Any, values: Mapping[str, Any]) -> ConfigDict:
    return ConfigDict({field.name: _field_value(field, values[field.name]) for field in dataclasses.fields(kind)})


def _field_value(field: dataclasses.Field[Any], value: Any) -> Any:
    if "rule" not in field.metadata:
        return _config(field.default_factory, value)
    kinds = members(field.type)
    if len(kinds) == 1:
        return float(value) if field.type is float else value
    named = [kind for kind in kinds if kind is not type(None)]
    return FieldReference(value, field_type=(typing.get_origin(named[0]) or named[0]) if len(named) == 1 else object)


def to_dict(options: Any) -> dict[str, Any]:
    """Return `options` as nested dictionaries, as they are stored in config.json."""
    return dataclasses.asdict(options)


def from_dict(values: Mapping[str, Any]) -> RunOptions:
    """Return the options in nested dictionaries, such as a ConfigDict or the content of a config.json.

    Raises ArgumentError, with a dotted name, for the first one that is out of range; UserError if an option is
    missing or unknown, since another version's config must not fall back on defaults.
    """
    options: RunOptions = _section_from(RunOptions, _values(RunOptions, values, ""), "")
    return options


def with_added(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json with the defaults of options that were added after it was written.

    Only an option that is declared as `added` gets its default.
    """
    return _with_added(RunOptions, values)


def _with_added(kind: Any, values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values  # refused by `_values`
    completed = dict(values)
    for field in dataclasses.fields(kind):
        if "rule" not in field.metadata:
            within = _with_added(field.default_factory, completed.get(field.name, {}))
            if within or field.name in completed:
                completed[field.name] = within
        elif field.metadata["rule"].added:
            completed.setdefault(field.name, field.default)
    return completed


def _values(kind: Any, values: Any, prefix: str) -> dict[str, Any]:
    """Return `values`, nested dictionaries, with the types of the options; check that they are those of `kind`."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if not isinstance(values, Mapping | ConfigDict):
        raise UserError(f"the config cannot be used: {prefix.removesuffix('.') or 'it'} must be a group of options")
    given = dict(values.items())
    for name in given:
        if (key := prefix + name) in RENAMED:
            raise UserError(f"{key}: {RENAMED[key]}")
    if differing := sorted(set(fields) ^ set(given)):
        listed = ", ".join(prefix + name for name in differing)
        raise UserError(f"the config is of another version: {listed} is missing or unknown")
    return {name: _value(field, given[name], prefix) for name, field in fields.items()}


def _value(field: dataclasses.Field[Any], value: Any, prefix: str) -> Any:
    if "rule" not in field.metadata:
        return _values(field.default_factory, value, f"{prefix}{field.name}.")
    try:
        return checked(field, tuple(value) if isinstance(value, list) else value)  # JSON makes tuples lists
    except ArgumentError as error:
        raise error.within(prefix) from None


def _section_from(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    sections = {field.name: field.default_factory for field in dataclasses.fields(kind) if "rule" not in field.metadata}
    made = {name: _section_from(section, values[name], f"{prefix}{name}.") for name, section in sections.items()}
    try:
        return kind(**{**values, **made})
    except ArgumentError as error:
        raise _within(prefix, kind, error) from None


def _within(prefix: str, kind: Any, error: ArgumentError) -> ArgumentError:
    """Return the error with `prefix` before the options of the section `kind` that it names."""
    names = "|".join(field.name for field in dataclasses.fields(kind))
    problem = re.sub(rf"(?<![\w./-])({names})(?==)", rf"{prefix}\1", error.problem)
    return ArgumentError(prefix + error.argument, problem)


def describe() -> str:
    """Return every option with its default, its range and its help text, for `--help`."""
    lines = []
    for key, field in KEYS.items():
        rule: Rule = field.metadata["rule"]
        lines.append(f"--config.{key}={field.default}")
        lines.append(f"    {rule.help}{_allowed(field)}")
    return "\n".join(lines)


def _allowed(field: dataclasses.Field[Any]) -> str:
    allowed = field.metadata["rule"].allowed() or f"must be {type_in_words(field.type)}"
    return f" ({allowed.removeprefix('must be ')})"


def reference_page() -> str:
    """Return docs/options.md: a table per section."""
    parts = [
        "# Options\n\nEvery option of a run, set with `--config.KEY=VALUE`. Options marked * may be changed when a run "
        "is resumed, and so may those marked †: what is learned depends on them, so each change is kept in the run's "
        "`history.json` ([Resume and extend a run](howto/resume.md)).\n\n"
        "This page is written by `python -m hvq_jax.runs.options > docs/options.md`.\n"
    ]
    sections: dict[str, list[str]] = {}
    for key, field in KEYS.items():
        name, _, short = key.rpartition(".")
        mark = "*" if field.metadata["rule"].changeable else "†" if field.metadata["rule"].recorded else ""
        help_text = re.sub(r"([|\[])", r"\\\1", field.metadata["rule"].help)
        allowed = _allowed(field)[len(" (") : -len(")")].removeprefix("choose ")
        row = f"| `{short or key}`{mark} | `{field.default}` | {allowed} | {help_text} |"
        sections.setdefault(name, []).append(row)
    for name, rows in sections.items():
        head = f"\n## {name or 'run'}\n\n| option | default | values | meaning |\n| --- | --- | --- | --- |\n"
        parts.append(head + "\n".join(rows) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    print(reference_page(), end="")
