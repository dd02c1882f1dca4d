"""The options of the encoder and the decoder."""

import dataclasses
from typing import Any

from hvq_jax.networks.layers import COMPUTE_DTYPES, SKIPS
from hvq_jax.options import Options, option

# By name; filled in `networks/__init__.py`, where the classes are known.
ENCODERS: dict[str, Any] = {}
DECODERS: dict[str, Any] = {}

FACTORS = (2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class NetworkOptions(Options):
    """The encoder and the decoder; both get all of these options."""

    encoder: str = option("reference", "encoder", choices=ENCODERS, importable=True)
    decoder: str = option("reference", "decoder", choices=DECODERS, importable=True)
    factor: int = option(4, "image side per latent side", choices=FACTORS)
    width: int | None = option(
        None,
        "channels of the hidden layers; None: latent.dim. Where it differs from latent.dim, 1×1 convolutions join them",
        low=1,
    )
    num_blocks: int = option(2, "residual blocks, in the encoder and in the decoder", low=0, high=100)
    skip: str = option("identity", "residual blocks: x + f, or relu(x) + f as in the reference", choices=SKIPS)
    compute_dtype: str = option(
        "float32",
        "dtype of the convolutions, bfloat16 for accelerators; parameters, statistics, latents and losses are float32",
        choices=COMPUTE_DTYPES,
    )
