"""Quantizers, which stand between encoder and decoder, by their name in `codebook.family`."""

from hvq_jax import registry
from hvq_jax.options import refuse_unused
from hvq_jax.quantizers.bottleneck import CodebookQuantizer, Quantizer
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
    family = registry.find("codebook.family", codebook_options.family, QUANTIZERS)
    registered = {name: kind.option_names for name, kind in QUANTIZERS.items()}
    refuse_unused(codebook_options, "family", family.option_names, registered, section="codebook.")
    quantizer: Quantizer = family(latent_options, codebook_options)
    return quantizer
