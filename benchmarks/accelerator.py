"""How much of a device the training steps use: images a second, model FLOP utilisation and memory, as a table.

    python -m benchmarks.accelerator                                         # GPU, TPU or CPU, whatever JAX finds
    python -m benchmarks.accelerator --rows=train128,prior32 --dtypes=bfloat16 --batch=64,128,256 --json=here.json

What is timed is what `train.py` runs, with the config `reference` in the row's size: the step under pmap over all
devices at hand, its state donated, the batches on the devices as uint8, and off the CPU ten steps in a dispatch. Each
row is measured in a process of its own, so that its peak memory is its own, after a first dispatch that is not counted.

*FLOP an image* is the model's, by the shapes of its convolutions and products: two for each weight and each position
that the weight meets inside the image or grid (not in its padding). A training step counts three forward passes, for
forward and backward together, and the codebook search, which has no backward pass, once. What is computed anew for the
backward pass, or besides by another form of the same convolution, is not counted; neither are normalisation,
activations, losses and the optimizer.

*MFU* is FLOP an image times images a second, over the peak of all devices. The peak is the published one of dense
products for the kinds of devices in `PEAKS`: for float32 that of TF32 on NVIDIA's GPUs that have it and that of
bfloat16 on TPUs, since JAX's default precision uses those. For any other device, a CPU too, it is what one large matrix
product in that dtype reaches there, and the table says "measured". MFU may then be above 100 %, as it was
in bfloat16 on CPU: one product need not be the fastest that the device can do.

*Memory* is the peak of the fullest device where JAX tells it (GPU and TPU); elsewhere it is what XLA plans for the
compiled dispatch: arguments, results and temporaries, less what the donated state shares ("planned").
"""

import argparse
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from configs import reference
from hvq_jax.autoencoder import Autoencoder
from hvq_jax.data.pipeline import Batch
from hvq_jax.errors import UserError, exit_status
from hvq_jax.layers import COMPUTE_DTYPES
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.training.autoencoder_stage import autoencoder_stage
from hvq_jax.training.config import autoencoder_of, fit_options_of, prior_of
from hvq_jax.training.dispatch import compile_dispatch
from hvq_jax.training.loop import FitOptions, Stage, initial_state, optimizer_of
from hvq_jax.training.parallel import Parallel
from hvq_jax.training.prior_stage import prior_stage
from hvq_jax.training.state import train_step
from hvq_jax.training.xla import set_cpu_options

_ROOT = Path(__file__).parents[1]
_MIB = 2**20
NUM_CLASSES = 10
STEPS_PER_DISPATCH = 10  # off the CPU
HEADER = "work | dtype | batch | images/s | ms a step | MFLOP an image | peak TFLOP/s | MFU | memory MiB"


@dataclasses.dataclass(frozen=True)
class Row:
    """A training step of the config `reference` in one size."""

    title: str
    shape: tuple[int, ...]  # H, W, C: the autoencoder's; h, w: the prior's
    batch: int  # over all devices
    dim: int = 256  # D
    codes: int = 512  # K
    layers: int = 15  # of the prior
    extra: bool = False  # only where it is asked for

    @property
    def is_prior(self) -> bool:
        """Whether it is the prior's."""
        return len(self.shape) == 2


ROWS = {
    "train28": Row("autoencoder, 28×28×1, D = 256", (28, 28, 1), 128),
    "train32": Row("autoencoder, 32×32×3, D = 128", (32, 32, 3), 128, dim=128),
    "train128": Row("autoencoder, 128×128×3, D = 256", (128, 128, 3), 64),
    "prior7": Row("PixelCNN, 7×7", (7, 7), 128),
    "prior32": Row("PixelCNN, 32×32", (32, 32), 64),
    # In seconds on any machine, to see that the command works.
    "tiny": Row("autoencoder, 8×8×1, D = 8", (8, 8, 1), 16, dim=8, codes=16, extra=True),
    "tiny_prior": Row("PixelCNN, 3×4, 2 layers", (3, 4), 16, codes=16, layers=2, extra=True),
}


# Model FLOP


def _met(side: int, kernel: int, before: int, stride: int = 1) -> int:
    """Along one axis, how many pairs of a tap and an input all outputs of a convolution see, padding not counted."""
    outputs = range(0, side, stride)
    return sum(0 <= start - before + tap < side for start in outputs for tap in range(kernel))


def autoencoder_flop(model: Autoencoder) -> tuple[int, int]:
    """FLOP an image: of encoder and decoder, forward; and of the codebook search."""
    (height, width, channels), (h, w), dim = model.image_shape, model.latent_shape, model.latent.dim

    def strided(height: int, width: int) -> int:
        """Taps of a 4×4 convolution, or a transposed one, whose larger side is this."""
        return _met(height, 4, 1, 2) * _met(width, 4, 1, 2)

    ends = 2 * strided(height, width) * channels * dim  # first and last
    inner = 2 * strided(height // 2, width // 2) * dim * dim
    block = (_met(h, 3, 1) * _met(w, 3, 1) + h * w) * dim * dim
    return 2 * (ends + inner + 4 * block), 2 * h * w * model.latent.num_codes * dim


def pixelcnn_flop(model: PixelCNN, height: int, width: int) -> int:
    """FLOP a grid, forward; weights that the mask hides are counted."""
    positions, features = height * width, model.width
    total = positions * (features * model.head_width + model.head_width * model.num_codes)
    for layer in range(model.num_layers):
        reach = 3 if layer == 0 else 1
        rows, above = _met(height, reach + 1, reach), _met(width, 2 * reach + 1, reach)
        left = _met(width, reach + 1, reach)
        kernels = (rows * above + height * left) * features * 2 * features
        total += kernels + positions * (4 + 1) * features * features  # vertical to horizontal; output
    return 2 * total


# Peaks

# Kind of device, as JAX spells it -> TFLOP/s of dense products in float32 (see above) and bfloat16; None: it has none.
# NVIDIA's data sheets of H100, H200, A100, L4 and V100 (half of what they give "with sparsity"; H100 and H200 from the
# Hopper architecture's white paper), Google Cloud's pages on TPU v4, v5e, v5p and v6e.
PEAKS: dict[str, tuple[float | None, float | None]] = {
    r"NVIDIA H100 80GB HBM3": (494.7, 989.4),  # SXM
    r"NVIDIA H100 PCIe": (378.0, 756.0),
    r"NVIDIA H200": (494.7, 989.4),
    r"NVIDIA A100-(SXM4|PCIE)-(40|80)GB|NVIDIA A100 80GB PCIe": (156.0, 312.0),
    r"NVIDIA L4": (60.0, 121.0),
    r"Tesla V100-SXM2-.*GB": (15.7, None),
    r"Tesla V100-PCIE-.*GB": (14.0, None),
    r"TPU v4": (275.0, 275.0),
    r"TPU v5 lite|TPU v5e": (197.0, 197.0),
    r"TPU v5|TPU v5p": (459.0, 459.0),
    r"TPU v6 lite|TPU v6e": (918.0, 918.0),
}


def published_peak(device_kind: str, dtype: str) -> float | None:
    """FLOP/s of one device, None where the table has none. A part of a device (MIG) is another kind."""
    for kind, peaks in PEAKS.items():
        if re.fullmatch(kind, device_kind):
            peak = peaks[COMPUTE_DTYPES.index(dtype)]
            return None if peak is None else 1e12 * peak
    return None


def measured_peak(dtype: str, side: int, repetitions: int = 5) -> float:
    """FLOP/s that a product of two square matrices reaches on the first device, in the best of the repetitions."""
    a = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    shortest = math.inf
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        shortest = min(shortest, time.perf_counter() - start)
    return 2 * side**3 / shortest


# One row, in its own process


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Of one row."""

    row: str
    dtype: str
    batch: int  # over all devices
    device_kind: str
    platform: str
    num_devices: int
    steps: int
    steps_per_dispatch: int
    seconds_per_step: float
    flop_per_image: int  # of a training step
    peak: float  # FLOP/s of one device
    peak_source: str  # "published" or "measured"
    memory_bytes: int  # of one device
    memory_source: str  # "peak" or "planned"
    final_loss: float

    @property
    def images_per_second(self) -> float:
        """Over all devices."""
        return self.batch / self.seconds_per_step

    @property
    def utilisation(self) -> float:
        """Model FLOP utilisation, 1 at the peak."""
        return self.images_per_second * self.flop_per_image / (self.num_devices * self.peak)


def subject_of(row: Row, dtype: str, batch: int) -> tuple[Stage, FitOptions, Batch, int]:
    """What is trained: the stage, its options, a batch of noise, and the FLOP an image of a training step."""
    config = reference.get_config("vq")
    config.latent.dim, config.latent.num_codes = row.dim, row.codes
    config.network.compute_dtype = config.prior.compute_dtype = dtype
    config.prior.num_layers = row.layers
    random, labels = np.random.default_rng(0), np.arange(batch, dtype=np.int32) % NUM_CLASSES
    if row.is_prior:
        height, width = row.shape
        prior = prior_of(config, NUM_CLASSES)
        indices = random.integers(0, row.codes, (batch, height, width), np.int32)
        stage = prior_stage(prior, (height, width), 16 * height * width)
        flop = 3 * pixelcnn_flop(prior, height, width)
        return stage, fit_options_of(config.prior), Batch(indices, labels, np.ones(batch, bool)), flop
    height, width, channels = row.shape
    model = autoencoder_of(config, (height, width, channels))
    images = random.integers(0, 256, (batch, *row.shape), np.uint8)
    networks, search = autoencoder_flop(model)
    stage = autoencoder_stage(model, images[:1])
    return stage, fit_options_of(config.autoencoder), Batch(images, labels, np.ones(batch, bool)), 3 * networks + search


def memory_of(compiled: Any) -> tuple[int, str]:
    """Bytes of the fullest device, and where they are from: its peak so far, or XLA's plan."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("peak_bytes_in_use" in of_device for of_device in stats):
        return max(of_device["peak_bytes_in_use"] for of_device in stats), "peak"
    plan = compiled.memory_analysis()
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return held - plan.alias_size_in_bytes, "planned"


def measure(name: str, dtype: str, batch: int, steps: int) -> Measurement:
    """Trains in this process, on all its devices."""
    parallel, device = Parallel("pmap"), jax.devices()[0]
    parallel.check_batch_size("--batch", batch)
    stage, options, one_batch, flop = subject_of(ROWS[name], dtype, batch)
    on_cpu = device.platform == "cpu"
    group = 1 if on_cpu else min(steps, STEPS_PER_DISPATCH)
    dispatches = math.ceil(steps / group)
    step = partial(
        train_step,
        loss_function=stage.loss,
        optimizer=optimizer_of(options, steps),
        seed=0,
        axis_name=parallel.axis_name,
    )
    state = parallel.replicate(jax.jit(partial(initial_state, stage, options, steps, 0))())
    batches = parallel.shard_steps([one_batch] * group)
    dispatch: Any = compile_dispatch(step, parallel)
    compiled = dispatch.lower(state, batches).compile()
    state, reports = jax.block_until_ready(compiled(state, batches))
    start = time.perf_counter()
    for _ in range(dispatches):
        state, reports = compiled(state, batches)
    loss = float(jax.device_get(reports.loss)[-1])  # waits for all of them
    seconds = (time.perf_counter() - start) / (dispatches * group)
    memory, memory_source = memory_of(compiled)
    published = published_peak(device.device_kind, dtype)
    return Measurement(
        row=name,
        dtype=dtype,
        batch=batch,
        device_kind=device.device_kind,
        platform=device.platform,
        num_devices=parallel.num_devices,
        steps=dispatches * group,
        steps_per_dispatch=group,
        seconds_per_step=seconds,
        flop_per_image=flop,
        peak=published or measured_peak(dtype, 1024 if on_cpu else 8192),
        peak_source="published" if published else "measured",
        memory_bytes=memory,
        memory_source=memory_source,
        final_loss=loss,
    )


def in_a_process_of_its_own(name: str, dtype: str, batch: int, steps: int) -> Measurement:
    """`measure` there; UserError with the last line it said where it fails."""
    command = [sys.executable, "-m", "benchmarks.accelerator", "--measure"]
    command += [f"--rows={name}", f"--dtypes={dtype}", f"--batch={batch}", f"--steps={steps}"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise UserError(
            f"{name} in {dtype} with a batch of {batch} ended with status {done.returncode}: "
            f"{lines[-1].removeprefix('error: ')}"
        )
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


# The table


def cells(measurement: Measurement) -> str:
    """A row of the table."""
    m = measurement
    rate = f"{m.images_per_second:,.0f}" if m.images_per_second >= 100 else f"{m.images_per_second:.3g}"
    return (
        f"{ROWS[m.row].title} | {m.dtype} | {m.batch} | {rate} | {1e3 * m.seconds_per_step:,.1f} | "
        f"{m.flop_per_image / 1e6:,.1f} | {m.peak / 1e12:,.2f} {m.peak_source} | {m.utilisation:.1%} | "
        f"{m.memory_bytes / _MIB:,.0f} {m.memory_source}"
    )


def conditions(measurement: Measurement) -> str:
    """One line on what was measured with."""
    m = measurement
    cores = f", {len(os.sched_getaffinity(0))} cores" if m.platform == "cpu" else ""
    return (
        f"{m.num_devices} × {m.device_kind} ({m.platform}{cores}); jax {jax.__version__}; "
        f"{m.steps_per_dispatch} steps a dispatch"
    )


def record(measurement: Measurement) -> dict[str, Any]:
    """A row of the JSON file."""
    return {
        **dataclasses.asdict(measurement),
        "work": ROWS[measurement.row].title,
        "images_per_second": measurement.images_per_second,
        "utilisation": measurement.utilisation,
    }


# The command line


class Parser(argparse.ArgumentParser):
    """One line for a mistake, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(message)


def chosen(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    """Names parted by commas, in the order of `known`; UserError for one that is not there."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"--{option}={text}: there is no {name!r}; choose from {', '.join(known)}")
    return [name for name in known if name in names]


def batch_sizes(text: str) -> list[int]:
    """Numbers parted by commas; UserError unless each is at least 1."""
    if not re.fullmatch(r"\s*0*[1-9]\d*\s*(,\s*0*[1-9]\d*\s*)*", text):
        raise UserError(f"--batch={text}: must be whole numbers of at least 1, parted by commas")
    return [int(size) for size in text.split(",")]


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, lists where they are lists; UserError where they make no sense."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    ordinary = ",".join(name for name, row in ROWS.items() if not row.extra)
    extra = ",".join(name for name, row in ROWS.items() if row.extra)
    parser.add_argument("--rows", default=ordinary, help=f"default %(default)s; there are also {extra}")
    parser.add_argument("--dtypes", default=",".join(COMPUTE_DTYPES), help="default %(default)s")
    parser.add_argument("--batch", help="sizes over all devices, for every row; default: each row's own")
    parser.add_argument("--steps", type=int, default=20, help="timed of each row, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there too")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args(arguments)
    options.rows = chosen("rows", options.rows, tuple(ROWS))
    options.dtypes = chosen("dtypes", options.dtypes, COMPUTE_DTYPES)
    options.batch = batch_sizes(options.batch) if options.batch is not None else None
    if options.steps < 1:
        raise UserError(f"--steps={options.steps}: must be at least 1")
    if options.json and not os.access(Path(options.json).absolute().parent, os.W_OK):
        raise UserError(f"--json={options.json}: the folder does not exist or cannot be written to")
    return options


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    options = parse(arguments)
    if options.measure:
        (name,), (dtype,), (batch,) = options.rows, options.dtypes, options.batch
        set_cpu_options()
        try:
            measurement = measure(name, dtype, batch, options.steps)
        except jax.errors.JaxRuntimeError as error:  # no memory left, for one
            raise UserError(str(error).splitlines()[0]) from error
        print(json.dumps(dataclasses.asdict(measurement)))
        return
    measurements: list[Measurement] = []
    for name in options.rows:
        for batch in options.batch or [ROWS[name].batch]:
            for dtype in options.dtypes:
                measurement = in_a_process_of_its_own(name, dtype, batch, options.steps)
                if not measurements:
                    print(f"{conditions(measurement)}\n\n| {HEADER} |\n|{'---|' * (HEADER.count('|') + 1)}")
                print(f"| {cells(measurement)} |", flush=True)
                measurements.append(measurement)
                if options.json:  # after every row, so that none is lost where a later one fails
                    report = {"jax": jax.__version__, "rows": [record(m) for m in measurements]}
                    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(partial(run, sys.argv[1:])))
