"""Tiny models, one for every way to quantize."""

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.losses import LossOptions
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.quantizers import CodebookOptions, LatentOptions

K, D = 8, 4


def model_of(latent_options=None, codebook_options=None, loss=None):
    return Autoencoder(
        (8, 8, 1),
        network=NetworkOptions(num_blocks=0),
        latent_options=LatentOptions(
            **{"mode": "vq", "num_codes": K, "dim": D, "num_frequent": 4, **(latent_options or {})}
        ),
        codebook_options=CodebookOptions(**(codebook_options or {})),
        loss=LossOptions(**{"commitment_weight": 1.0, "projection_weight": 1.0, **(loss or {})}),
    )


GRADIENT = {"learning": "gradient"}

# All families, learning rules, initialisations and rules of assignment; options that do not depend on each other share
# a row.
METHODS = {
    "averages from data": model_of(),
    "averages from clusters, by cosine, entropy": model_of(
        codebook_options={"init": "kmeans", "assignment": "cosine"}, loss={"entropy_weight": 0.1}
    ),
    "averages of unit norm": model_of(codebook_options={"unit_norm": "both"}),
    "averages by line, in groups": model_of(
        {"mode": "projected", "projection_groups": 2}, {"assignment": "projection"}, {"commitment_target": "projection"}
    ),
    "directions by line": model_of(
        {"mode": "projected"},
        {"unit_norm": "codes", "assignment": "projection"},
        {"commitment_target": "projection"},
    ),
    "directions from clusters": model_of(
        {"mode": "combined"}, {"unit_norm": "codes", "init": "kmeans"}, {"commitment_target": "projection"}
    ),
    "gradient": model_of(codebook_options={**GRADIENT, "init": "uniform"}),
    "gradient from data, turned, entropy": model_of({"estimator": "rotation"}, GRADIENT, {"entropy_weight": 0.1}),
    "gradient from clusters, of unit norm": model_of(
        codebook_options={**GRADIENT, "init": "kmeans", "unit_norm": "both", "assignment": "cosine"}
    ),
    "map of frozen codes from data": model_of(codebook_options={"learning": "simvq"}),
    "of the decoder": model_of({"estimator": "diveq"}, {"learning": "diveq"}),
    "residual": model_of(codebook_options={"family": "residual", "depth": 3}),
    "residual from clusters": model_of(codebook_options={"family": "residual", "depth": 2, "init": "kmeans"}),
    "grouped": model_of(codebook_options={"family": "grouped"}),
    "grouped by a map, from clusters, entropy": model_of(
        codebook_options={"family": "grouped", "learning": "simvq", "init": "kmeans"}, loss={"entropy_weight": 0.1}
    ),
    "grouped, shared, of unit norm": model_of(
        codebook_options={"family": "grouped", "share_codes": True, "unit_norm": "both"}
    ),
    "scalars": model_of(codebook_options={"family": "fsq", "levels": (4, 3)}),
    "residual scalars": model_of(codebook_options={"family": "residual_fsq", "levels": (4, 3), "depth": 2}),
    "bits, entropy": model_of(codebook_options={"family": "lfq", "bits": 3}, loss={"entropy_weight": 0.1}),
    "bits on the sphere, entropy": model_of(
        codebook_options={"family": "bsq", "bits": 3}, loss={"entropy_weight": 0.1}
    ),
}
