"""Quantizers, which stand between encoder and decoder, by their name in `codebook.family`."""

from hvq_jax import registry
from hvq_jax.options import field_names, refuse_unused
from hvq_jax.quantizers.bottleneck import CodebookQuantizer, Quantizer
from hvq_jax.quantizers.learning import LEARNING_RULES
from hvq_jax.quantizers.options import QUANTIZERS, CodebookOptions, LatentOptions
from hvq_jax.quantizers.residual import ResidualQuantizer
from hvq_jax.quantizers.scalar import ScalarQuantizer

# Each is constructed from (latent_options, codebook_options) and has the methods of `Quantizer`.
QUANTIZERS.update(codebook=CodebookQuantizer, residual=ResidualQuantizer, fsq=ScalarQuantizer)


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
