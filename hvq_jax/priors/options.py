"""The options of a prior's tokens and networks."""

import dataclasses
from typing import Any

from hvq_jax.networks.layers import COMPUTE_DTYPES
from hvq_jax.options import Options, option

NETWORKS: dict[str, Any] = {}  # by name; filled in `priors/__init__.py`, where the classes are known


@dataclasses.dataclass(frozen=True)
class TokenOptions(Options):
    """Options for rounding the continuous parts of a latent; see `tokens.py`."""

    num_bins: int = option(
        16,
        "number of bins for each signed length; 1: use each code's mean, unmodelled (latents that project)",
        low=1,
        high=256,
    )
    bins_per_code: bool = option(True, "a table of bins per code and group, or one for all")
    residual_step: float = option(0.1, "residuals are rounded to multiples of this (latents that show z_e)", low=1e-3)


@dataclasses.dataclass(frozen=True)
class PriorOptions(TokenOptions):
    """The prior: its network and what it predicts."""

    name: str = option("pixelcnn", "network", choices=NETWORKS, importable=True)
    conditional: bool = option(True, "condition on the class label")
    label_dropout: float = option(
        0.1, "share of training latents without their label; required for guidance in sampling", low=0, high=1
    )
    width: int | None = option(None, "channels; None: the network's own default (pixelcnn 64, transformer 192)", low=1)
    num_layers: int | None = option(
        None, "layers; None: the network's own default (pixelcnn 15, transformer 3)", low=1, high=100
    )
    num_heads: int = option(4, "attention heads, a divisor of the width (transformer)", low=1)
    dropout: float = option(0.0, "dropout in training (transformer)", low=0, high=0.99)
    head_width: int = option(512, "hidden units of the heads that predict codes and continuous parts", low=1)
    num_components: int = option(8, "Gaussians in the mixture that predicts residuals", low=1)
    compute_dtype: str = option(
        "float32", "dtype of the network; logits and draws are computed in float32", choices=COMPUTE_DTYPES
    )
