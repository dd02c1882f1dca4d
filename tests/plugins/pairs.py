"""A quantizer from outside the package that has several codes per position, whatever the latent.

--config.codebook.family=tests.plugins.pairs:Pairs
"""

import dataclasses

from hvq_jax.quantizers.residual import ResidualQuantizer


@dataclasses.dataclass(frozen=True)
class Pairs(ResidualQuantizer):
    """Residual quantization that accepts every latent."""

    def __post_init__(self):
        pass
