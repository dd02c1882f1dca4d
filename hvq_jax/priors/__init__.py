"""Priors over hybrid latents, and their networks by their name in `prior.name`."""

from typing import Any

from hvq_jax import registry
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import PROJECTION, Z_E, find_latent
from hvq_jax.options import field_names, refuse_unused
from hvq_jax.priors.heads import GainHead, ResidualHead
from hvq_jax.priors.network import PriorNetwork
from hvq_jax.priors.options import NETWORKS, PriorOptions
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior
from hvq_jax.priors.transformer import Transformer
from hvq_jax.quantizers.options import LatentOptions

# Each is a Linen module with the methods of `PriorNetwork`, and receives the options that it has fields for.
NETWORKS.update(pixelcnn=PixelCNN, transformer=Transformer)


def make_network(options: PriorOptions, *, num_classes: int, grid: tuple[int, int]) -> PriorNetwork:
    """Return the network named in `options.name`, for latents of shape `grid`, (h, w).

    >>> network = make_network(PriorOptions(name="transformer", num_layers=2), num_classes=10, grid=(7, 7))
    >>> type(network).__name__, network.num_layers, network.width
    ('Transformer', 2, 192)

    Raises ArgumentError for an option that the network does not have, or that does not fit it.
    """
    network = registry.find("name", options.name, NETWORKS, PriorNetwork)
    with registry.constructing("name", options.name):
        return _construct(network, options, num_classes=num_classes, grid=grid)


def _construct(
    network: type[PriorNetwork], options: PriorOptions, *, num_classes: int, grid: tuple[int, int]
) -> PriorNetwork:
    fields = field_names(network)
    used = fields | {"compute_dtype"}  # the heads of the prior use it, too
    refuse_unused(options, "name", used, {name: field_names(kind) for name, kind in NETWORKS.items()})
    sizes = {name: size for name in ("width", "num_layers") if (size := getattr(options, name)) is not None}
    given = {
        "num_classes": num_classes,
        "grid": grid,
        "num_heads": options.num_heads,
        "dropout": options.dropout,
        "compute_dtype": options.compute_dtype,
        **sizes,
    }
    made = network(**{name: value for name, value in given.items() if name in fields})
    if "num_heads" in fields and made.width % options.num_heads:
        raise ArgumentError(f"num_heads={options.num_heads}", f"must divide width={made.width}")
    return made


def has_heads(options: PriorOptions, latent_options: LatentOptions) -> bool:
    """Return whether a prior over this latent draws more than codes.

    >>> [has_heads(PriorOptions(num_bins=16), LatentOptions(mode=mode)) for mode in ("vq", "projected", "frequency")]
    [False, True, True]
    """
    row = find_latent(latent_options.mode)
    return row.uses(Z_E) or (row.uses(PROJECTION) and options.num_bins > 1)


def make_prior(
    options: PriorOptions,
    latent_options: LatentOptions,
    *,
    num_codes: int,
    num_classes: int,
    grid: tuple[int, int],
    codes_per_position: int = 1,
) -> Prior:
    """Return the prior over latents of shape `grid` with `num_codes` codes; `num_classes` is the data set's.

    >>> groups = LatentOptions(mode="combined", projection_groups=4)
    >>> make_prior(PriorOptions(), groups, num_codes=512, num_classes=10, grid=(7, 7)).num_channels  # a code, 4 bins
    5
    """
    network = make_network(options, num_classes=num_classes if options.conditional else 0, grid=grid)
    sizes: Any = {"width": network.width, "head_width": options.head_width, "compute_dtype": options.compute_dtype}
    row = find_latent(latent_options.mode)
    heads: list[Any] = []
    if row.uses(PROJECTION) and options.num_bins > 1:
        heads.append(GainHead(num_codes, options.num_bins, latent_options.projection_groups, **sizes))
    if row.uses(Z_E):
        step = options.residual_step
        # A step well below the deviation of residuals wastes bits, one well above it loses them.
        head = ResidualHead(
            num_codes, latent_options.dim, step, options.num_components, **sizes, initial_scale=2 * step
        )
        heads.append(head)
    return Prior(num_codes, network, tuple(heads), options.head_width, codes_per_position)
