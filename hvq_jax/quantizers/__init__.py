"""Quantizers, which stand between encoder and decoder, by their name in `codebook.family`."""

import dataclasses

from hvq_jax import latents, registry
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import PROJECTION
from hvq_jax.losses import LossOptions
from hvq_jax.options import field_names, refuse_unused
from hvq_jax.quantizers.binary import LookupFreeQuantizer, SphericalQuantizer
from hvq_jax.quantizers.bottleneck import CodebookQuantizer, Quantizer
from hvq_jax.quantizers.grouped import GroupedQuantizer
from hvq_jax.quantizers.learning import LEARNING_RULES
from hvq_jax.quantizers.options import QUANTIZERS, CodebookOptions, LatentOptions
from hvq_jax.quantizers.residual import ResidualQuantizer
from hvq_jax.quantizers.residual_scalar import ResidualScalarQuantizer
from hvq_jax.quantizers.scalar import ScalarQuantizer

# Each is constructed from (latent_options, codebook_options) and has the methods of `Quantizer`.
QUANTIZERS.update(
    codebook=CodebookQuantizer,
    residual=ResidualQuantizer,
    grouped=GroupedQuantizer,
    fsq=ScalarQuantizer,
    residual_fsq=ResidualScalarQuantizer,
    lfq=LookupFreeQuantizer,
    bsq=SphericalQuantizer,
)


def make_quantizer(latent_options: LatentOptions, codebook_options: CodebookOptions) -> Quantizer:
    """Return the quantizer named in `codebook.family`; raise ArgumentError if the options are incompatible.

    >>> make_quantizer(LatentOptions(mode="vq"), CodebookOptions(family="fsq", levels=(5, 4))).num_codes
    20
    """
    family = registry.find("codebook.family", codebook_options.family, QUANTIZERS, Quantizer)
    registered = {name: kind.option_names for name, kind in QUANTIZERS.items()}
    refuse_unused(codebook_options, "family", family.option_names, registered, section="codebook.")
    with registry.constructing("codebook.family", codebook_options.family):
        quantizer: Quantizer = family(latent_options, codebook_options)
    return quantizer


def options_in_use(codebook_options: CodebookOptions) -> frozenset[str]:
    """Return the names of the options that the chosen family and learning rule use.

    >>> sorted(options_in_use(CodebookOptions(learning="gradient")))
    ['assignment', 'init', 'learning', 'unit_norm']
    """
    used = frozenset(registry.find("codebook.family", codebook_options.family, QUANTIZERS).option_names)
    if "learning" not in used:
        return used
    rule = registry.find("codebook.learning", codebook_options.learning, LEARNING_RULES)
    return used - frozenset().union(*map(field_names, LEARNING_RULES.values())) | used & field_names(rule)


def check_options(
    latent_options: LatentOptions,
    codebook_options: CodebookOptions,
    loss: LossOptions,
    *,
    frequent_codes_given: bool = False,
) -> None:
    """Check that the latent, codebook and loss options are compatible; raise ArgumentError with a dotted name.

    With `frequent_codes_given`, as in a file of one's own latents, `num_frequent` is not used and may be anything.

    >>> check_options(LatentOptions(mode="combined", num_codes=256), CodebookOptions(), LossOptions())
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: latent.num_frequent=312: must be from 0 to 256
    """
    row, quantizer = latents.find_latent(latent_options.mode), make_quantizer(latent_options, codebook_options)
    counted = row.masked and latent_options.frequent_mass is None and not frequent_codes_given
    if counted and latent_options.num_frequent > quantizer.num_codes:
        given = f"latent.num_frequent={latent_options.num_frequent}"
        raise ArgumentError(given, f"must be from 0 to {quantizer.num_codes}")
    if loss.entropy_weight and not quantizer.has_entropy_loss:
        needs = f"codebook.family={codebook_options.family} needs loss.entropy_weight=0.0"
        raise ArgumentError(f"loss.entropy_weight={loss.entropy_weight}", needs)
    if codebook_options.unit_norm == "codes" and row.uses(PROJECTION) and loss.commitment_target == "code":
        raise ArgumentError(
            "codebook.unit_norm=codes",
            "needs loss.commitment_target=projection where the latent projects: encoder outputs committed to codes of "
            "length 1 would get that length, which leaves nothing to the gain",
        )


def weights_in_effect(loss: LossOptions, quantizer: Quantizer) -> LossOptions:
    """Return the `loss` options with weight 0 for the terms that `quantizer` does not train with.

    >>> scalars = make_quantizer(LatentOptions(mode="vq"), CodebookOptions(family="fsq"))
    >>> weights_in_effect(LossOptions(), scalars).commitment_weight
    0.0
    """
    return dataclasses.replace(
        loss,
        codebook_weight=loss.codebook_weight if quantizer.has_codebook_loss else 0.0,
        commitment_weight=loss.commitment_weight if quantizer.has_commitment_loss else 0.0,
    )
