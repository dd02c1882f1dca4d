"""Hybrid-latent VQ-VAEs in JAX: latents that are discrete, continuous, or a mix of both, and priors over them.

    import hvq_jax as hvq

    latent = hvq.HybridQuantizer(dim=64, num_codes=512)(z_e, train=True)    # in a Linen module; hvq.nnx has NNX's
    latent.z_bar, latent.loss, latent.indices

    run = hvq.load("runs/quickstart")
    run.sample("Dress", 4).images

Names are imported from their modules when they are first used, so `import hvq_jax` itself loads nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from hvq_jax import (
        autoencoder as autoencoder,
        latents as latents,
        linen as linen,
        losses as losses,
        metrics as metrics,
        nnx as nnx,
    )
    from hvq_jax.autoencoder import Autoencoder as Autoencoder, Variables as Variables
    from hvq_jax.codes import Codes as Codes, codes_of as codes_of, from_codes as from_codes
    from hvq_jax.data.augment import Augmentation as Augmentation
    from hvq_jax.data.datasets import ImageDataset as ImageDataset, load_dataset as load_dataset
    from hvq_jax.data.options import DataOptions as DataOptions
    from hvq_jax.errors import ArgumentError as ArgumentError, Preempted as Preempted, UserError as UserError
    from hvq_jax.export.exported import ExportedRun as ExportedRun, load_exported as load_exported
    from hvq_jax.export.run import export_run as export_run
    from hvq_jax.hybrid_quantizer import Quantized as Quantized
    from hvq_jax.latents import (
        LATENTS as LATENTS,
        HybridLatent as HybridLatent,
        Latent as Latent,
        frequent_codes as frequent_codes,
        hybrid_latent as hybrid_latent,
        project as project,
        straight_through as straight_through,
    )
    from hvq_jax.linen import HybridQuantizer as HybridQuantizer
    from hvq_jax.losses import LossOptions as LossOptions
    from hvq_jax.networks import DECODERS as DECODERS, ENCODERS as ENCODERS
    from hvq_jax.networks.options import NetworkOptions as NetworkOptions
    from hvq_jax.priors import NETWORKS as NETWORKS, make_prior as make_prior
    from hvq_jax.priors.options import PriorOptions as PriorOptions
    from hvq_jax.priors.prior import Prior as Prior
    from hvq_jax.priors.sampling import SamplingOptions as SamplingOptions, sample as sample
    from hvq_jax.quantizers import QUANTIZERS as QUANTIZERS, make_quantizer as make_quantizer
    from hvq_jax.quantizers.assignment import nearest_codes as nearest_codes
    from hvq_jax.quantizers.learning import LEARNING_RULES as LEARNING_RULES, LearningRule as LearningRule
    from hvq_jax.quantizers.options import CodebookOptions as CodebookOptions, LatentOptions as LatentOptions
    from hvq_jax.runs.loaded import LoadedRun as LoadedRun, load as load
    from hvq_jax.runs.open import run_experiment as run_experiment
    from hvq_jax.runs.options import (
        PriorStageOptions as PriorStageOptions,
        RunOptions as RunOptions,
        SampleSheetOptions as SampleSheetOptions,
    )
    from hvq_jax.runs.train import train as train
    from hvq_jax.runs.trained import TrainedRun as TrainedRun
    from hvq_jax.training.callbacks import Callback as Callback
    from hvq_jax.training.options import FitOptions as FitOptions

# The module of each public name.
_HOMES = {
    "ArgumentError": "errors",
    "Augmentation": "data.augment",
    "Autoencoder": "autoencoder",
    "Callback": "training.callbacks",
    "CodebookOptions": "quantizers.options",
    "Codes": "codes",
    "DECODERS": "networks",
    "DataOptions": "data.options",
    "ENCODERS": "networks",
    "ExportedRun": "export.exported",
    "FitOptions": "training.options",
    "HybridLatent": "latents",
    "HybridQuantizer": "linen",
    "ImageDataset": "data.datasets",
    "LATENTS": "latents",
    "LEARNING_RULES": "quantizers.learning",
    "Latent": "latents",
    "LatentOptions": "quantizers.options",
    "LearningRule": "quantizers.learning",
    "LoadedRun": "runs.loaded",
    "LossOptions": "losses",
    "NETWORKS": "priors",
    "NetworkOptions": "networks.options",
    "Preempted": "errors",
    "Prior": "priors.prior",
    "PriorOptions": "priors.options",
    "PriorStageOptions": "runs.options",
    "QUANTIZERS": "quantizers",
    "Quantized": "hybrid_quantizer",
    "RunOptions": "runs.options",
    "SampleSheetOptions": "runs.options",
    "SamplingOptions": "priors.sampling",
    "TrainedRun": "runs.trained",
    "UserError": "errors",
    "Variables": "autoencoder",
    "codes_of": "codes",
    "export_run": "export.run",
    "frequent_codes": "latents",
    "from_codes": "codes",
    "hybrid_latent": "latents",
    "load": "runs.loaded",
    "load_dataset": "data.datasets",
    "load_exported": "export.exported",
    "make_prior": "priors",
    "make_quantizer": "quantizers",
    "nearest_codes": "quantizers.assignment",
    "project": "latents",
    "run_experiment": "runs.open",
    "sample": "priors.sampling",
    "straight_through": "latents",
    "train": "runs.train",
}

# Modules whose functions are called by their module's name: `hvq.autoencoder.encode`.
_MODULES = ("autoencoder", "latents", "linen", "losses", "metrics", "nnx")

__all__ = ["__version__", *_HOMES, *_MODULES]


def _import(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _MODULES:
        return importlib.import_module(f"hvq_jax.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'hvq_jax' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"hvq_jax.{_HOMES[name]}"), name)
    return value


if not TYPE_CHECKING:  # for type checkers, there are no other names than those above
    __getattr__ = _import


def __dir__() -> list[str]:
    return sorted(__all__)
