"""What `benchmarks.accelerator` measures: training steps and sampling of the config `reference`, in given sizes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.measuring.flop import autoencoder_flop, prior_flop
from benchmarks.workloads.ours import sampler
from configs import reference
from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.programs import program_bytes
from hvq_jax.runs.options import RunOptions, from_dict
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import Taken, compiled_initial_state, compiled_steps
from hvq_jax.training.stage import Stage

NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Row:
    """Work of the config `reference` with given sizes."""

    title: str
    shape: tuple[int, ...]  # H, W, C: the autoencoder's; h, w: the prior's
    batch: int  # over all devices
    dim: int = 256  # D
    codes: int = 512  # K
    network: str = "pixelcnn"  # of the prior
    layers: int = 15  # of the prior
    samples: bool = False  # draws grids with the prior, instead of training
    extra: bool = False  # measured only on request

    @property
    def is_prior(self) -> bool:
        """Whether it is of the prior."""
        return len(self.shape) == 2


ROWS = {
    "train28": Row("autoencoder, 28×28×1, D = 256", (28, 28, 1), 128),
    "train32": Row("autoencoder, 32×32×3, D = 128", (32, 32, 3), 128, dim=128),
    "train128": Row("autoencoder, 128×128×3, D = 256", (128, 128, 3), 64),
    "prior7": Row("PixelCNN, 7×7", (7, 7), 128),
    "prior32": Row("PixelCNN, 32×32", (32, 32), 64),
    "transformer32": Row("transformer, 32×32", (32, 32), 64, network="transformer", layers=3),
    "sample7": Row("sampling of the PixelCNN, 7×7", (7, 7), 128, samples=True),
    "sample32": Row("sampling of the PixelCNN, 32×32", (32, 32), 64, samples=True),
    "sample32_transformer": Row(
        "sampling of the transformer, 32×32", (32, 32), 64, network="transformer", layers=3, samples=True
    ),
    # These take seconds on any machine and serve to check that the command works.
    "tiny": Row("autoencoder, 8×8×1, D = 8", (8, 8, 1), 16, dim=8, codes=16, extra=True),
    "tiny_prior": Row("PixelCNN, 3×4, 2 layers", (3, 4), 16, codes=16, layers=2, extra=True),
    "tiny_sample": Row("sampling of the PixelCNN, 3×4", (3, 4), 16, codes=16, layers=2, samples=True, extra=True),
}


@dataclasses.dataclass(frozen=True)
class Work:
    """A row's compiled program."""

    dispatch: Callable[[], Any]  # starts `steps` steps and returns what to wait for
    steps: int  # batches per dispatch
    num_devices: int
    flop: int  # per image or grid
    planned_bytes: int | None  # of one device; None where XLA does not say
    loss: Callable[[Any], float | None]  # of the last step, from what `dispatch` returns; None without training


def make_work(row: Row, dtype: str, batch: int, steps_per_dispatch: int) -> Work:
    """Return the work of a row: training on all devices, or sampling on one, as `sample.py` does."""
    return _sampling(row, dtype, batch) if row.samples else _training(row, dtype, batch, steps_per_dispatch)


def make_subject(row: Row, dtype: str, batch: int) -> tuple[Stage, FitOptions, Batch, int]:
    """Return the stage, its options, a batch of noise, and the FLOP per image of a training step."""
    options, random = _options(row, dtype), np.random.default_rng(0)
    labels = np.arange(batch, dtype=np.int32) % NUM_CLASSES
    if row.is_prior:
        height, width = row.shape
        prior = options.prior_model(num_classes=NUM_CLASSES, grid=(height, width))
        indices = random.integers(0, row.codes, (batch, height, width), np.int32)
        stage = PriorStage(prior, (height, width), 16 * height * width)
        return stage, options.prior, Batch(indices, labels, np.ones(batch, bool)), 3 * prior_flop(prior, height, width)
    height, width, channels = row.shape
    model = options.autoencoder_model((height, width, channels))
    images = random.integers(0, 256, (batch, *row.shape), np.uint8)
    networks, search = autoencoder_flop(model)
    batch_of_noise = Batch(images, labels, np.ones(batch, bool))
    return AutoencoderStage(model, images[:1]), options.autoencoder, batch_of_noise, 3 * networks + search


def _options(row: Row, dtype: str) -> RunOptions:
    config = reference.get_config("vq")
    config.latent.dim, config.latent.num_codes = row.dim, row.codes
    config.network.compute_dtype = config.prior.compute_dtype = dtype
    config.prior.name, config.prior.num_layers = row.network, row.layers
    if row.network == "transformer":
        config.prior.width = 192
    return from_dict(config)


def _training(row: Row, dtype: str, batch: int, steps_per_dispatch: int) -> Work:
    parallel = Parallel("pmap")
    parallel.check_batch_size("--batch", batch)
    stage, options, one_batch, flop = make_subject(row, dtype, batch)
    state = parallel.replicate(compiled_initial_state(stage, options, 0)())
    batches = parallel.shard_steps([Taken.by(one_batch, options.learning_rate)] * steps_per_dispatch)
    function: Any = compiled_steps(stage, options, 0, parallel)
    compiled = function.lower(state, batches).compile()

    def dispatch() -> Any:
        nonlocal state
        state, reports = compiled(state, batches)
        return reports

    def loss(reports: Any) -> float:
        return float(jax.device_get(reports.loss)[-1])

    return Work(dispatch, steps_per_dispatch, parallel.num_devices, flop, program_bytes(compiled), loss)


def _sampling(row: Row, dtype: str, batch: int) -> Work:
    height, width = row.shape
    prior = _options(row, dtype).prior_model(num_classes=NUM_CLASSES, grid=(height, width))
    labels = np.arange(batch, dtype=np.int32) % NUM_CLASSES
    params = jax.jit(prior.init)(jax.random.key(0), np.zeros((1, height, width, 1), np.int32), labels[:1])
    draw = sampler(prior, params, labels, height, width)
    return Work(draw, 1, 1, prior_flop(prior, height, width), None, lambda drawn: None)
