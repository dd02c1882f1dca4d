"""Tiny models, one for every way to quantize."""

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.losses import LossWeights
from hvq_jax.quantizers.bottleneck import CodebookOptions, LatentOptions

K, D = 8, 4


def model_of(latent=None, codebook=None, loss=None):
    return Autoencoder(
        (8, 8, 1),
        num_blocks=0,
        latent=LatentOptions(**{"mode": "vq", "num_codes": K, "dim": D, "num_frequent": 4, **(latent or {})}),
        codebook=CodebookOptions(**(codebook or {})),
        loss=LossWeights(**(loss or {})),
    )


GRADIENT = {"method": "gradient"}

# All methods, initialisations and rules; options that do not depend on each other share a row.
METHODS = {
    "averages from data": model_of(),
    "averages from clusters, by cosine, entropy": model_of(
        codebook={"init": "kmeans", "assignment": "cosine"}, loss={"entropy": 0.1}
    ),
    "averages of unit norm": model_of(codebook={"normalize": True}),
    "averages by line, in groups": model_of(
        {"mode": "projected", "projection_groups": 2}, {"assignment": "projection"}, {"commitment_target": "projection"}
    ),
    "directions by line": model_of(
        {"mode": "projected"},
        {"method": "spherical", "assignment": "projection"},
        {"commitment_target": "projection"},
    ),
    "directions from clusters": model_of(
        {"mode": "combined"}, {"method": "spherical", "init": "kmeans"}, {"commitment_target": "projection"}
    ),
    "gradient": model_of(codebook={**GRADIENT, "init": "uniform"}),
    "gradient from data, turned, entropy": model_of({"estimator": "rotation"}, GRADIENT, {"entropy": 0.1}),
    "gradient from clusters, of unit norm": model_of(
        codebook={**GRADIENT, "init": "kmeans", "normalize": True, "assignment": "cosine"}
    ),
    "residual": model_of(codebook={"depth": 3}),
    "residual from clusters": model_of(codebook={"depth": 2, "init": "kmeans"}),
    "scalars": model_of({"num_codes": 12}, {"method": "fsq", "levels": (4, 3)}, {"codebook": 0, "commitment": 0}),
}
