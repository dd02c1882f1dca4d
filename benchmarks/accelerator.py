"""How well the training steps use a device: images per second, model FLOP utilisation and memory, as a table.

    python -m benchmarks.accelerator                                         # GPU, TPU or CPU, whatever JAX finds
    python -m benchmarks.accelerator --rows=train128,prior32 --dtypes=bfloat16 --batch=64,128,256 --json=here.json

The benchmark times what `train.py` runs, with the config `reference` in the row's size: the step under pmap over all
available devices, with a donated state, batches on the devices as uint8, and, except on CPU, ten steps per dispatch.
Each row is measured in its own process, so that its peak memory is its own, after a first dispatch that is not counted.
*Others* is the share of all cores that other processes took meanwhile: on CPU, above 3 %, a time proves little.

*FLOP per image* is that of the model, from the shapes of its convolutions and products: two per weight and position at
which the weight lies inside the image or grid (not in its padding). A training step counts as three forward passes, for
forward and backward together, plus the codebook search once, which has no backward pass. Recomputation in the backward
pass, additional work of another form of the same convolution, normalisation, activations, losses and the optimizer are
not counted.

*MFU* is FLOP per image times images per second, divided by the peak of all devices. The peak is the published one of
dense products (`benchmarks/measuring/peaks.py`): for float32 that of TF32 on NVIDIA GPUs that have it, and that of
bfloat16 on TPUs, because these are what JAX's default precision uses. For any other device, including CPUs, it is the
rate of one large matrix product in that dtype, and the table says "measured". MFU may then exceed 100 %, as it did in
bfloat16 on CPU, because one product is not necessarily the fastest operation of the device.

*Memory* is the peak of the fullest device if JAX reports it (GPU and TPU). Otherwise it is what XLA plans for the
compiled dispatch: arguments, results and temporaries, minus what they share with the donated state ("planned").
"""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.measuring.command import Parser, check_at_least, check_json, chosen, list_integers
from benchmarks.measuring.flop import autoencoder_flop, pixelcnn_flop
from benchmarks.measuring.peaks import measured_peak, published_peak
from benchmarks.measuring.quiet import read, share_of_others
from configs import reference
from hvq_jax.command import exit_status
from hvq_jax.data.pipeline import Batch
from hvq_jax.devices import huge_pages
from hvq_jax.devices.cores import number_of_cores
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.programs import program_bytes
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError
from hvq_jax.files import write_json
from hvq_jax.networks.layers import COMPUTE_DTYPES
from hvq_jax.runs.options import from_dict
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.dispatch import default_steps_per_dispatch
from hvq_jax.training.options import FitOptions
from hvq_jax.training.prior_stage import PriorStage
from hvq_jax.training.programs import Taken, compiled_initial_state, compiled_steps
from hvq_jax.training.stage import Stage

_ROOT = Path(__file__).parents[1]
_MIB = 2**20
NUM_CLASSES = 10
HEADER = "work | dtype | batch | images/s | ms per step | MFLOP per image | peak TFLOP/s | MFU | memory MiB | others"


@dataclasses.dataclass(frozen=True)
class Row:
    """A training step of the config `reference` with given sizes."""

    title: str
    shape: tuple[int, ...]  # H, W, C: the autoencoder's; h, w: the prior's
    batch: int  # over all devices
    dim: int = 256  # D
    codes: int = 512  # K
    layers: int = 15  # of the prior
    extra: bool = False  # measured only on request

    @property
    def is_prior(self) -> bool:
        """Whether it is a step of the prior."""
        return len(self.shape) == 2


ROWS = {
    "train28": Row("autoencoder, 28×28×1, D = 256", (28, 28, 1), 128),
    "train32": Row("autoencoder, 32×32×3, D = 128", (32, 32, 3), 128, dim=128),
    "train128": Row("autoencoder, 128×128×3, D = 256", (128, 128, 3), 64),
    "prior7": Row("PixelCNN, 7×7", (7, 7), 128),
    "prior32": Row("PixelCNN, 32×32", (32, 32), 64),
    # These take seconds on any machine and serve to check that the command works.
    "tiny": Row("autoencoder, 8×8×1, D = 8", (8, 8, 1), 16, dim=8, codes=16, extra=True),
    "tiny_prior": Row("PixelCNN, 3×4, 2 layers", (3, 4), 16, codes=16, layers=2, extra=True),
}


# One row, in its own process


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The measurement of one row."""

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
    memory_bytes: int | None  # of one device; None where JAX says neither a peak nor a plan
    memory_source: str  # "peak" or "planned"
    final_loss: float
    others: float  # share of all cores that other processes took during the timed steps

    @property
    def images_per_second(self) -> float:
        """Images per second over all devices."""
        return self.batch / self.seconds_per_step

    @property
    def utilisation(self) -> float:
        """Model FLOP utilisation; 1 at the peak."""
        return self.images_per_second * self.flop_per_image / (self.num_devices * self.peak)


def make_subject(row: Row, dtype: str, batch: int) -> tuple[Stage, FitOptions, Batch, int]:
    """Return the stage, its options, a batch of noise, and the FLOP per image of a training step."""
    config = reference.get_config("vq")
    config.latent.dim, config.latent.num_codes = row.dim, row.codes
    config.network.compute_dtype = config.prior.compute_dtype = dtype
    config.prior.num_layers = row.layers
    options = from_dict(config)
    random, labels = np.random.default_rng(0), np.arange(batch, dtype=np.int32) % NUM_CLASSES
    if row.is_prior:
        height, width = row.shape
        prior = options.prior_model(num_classes=NUM_CLASSES, grid=(height, width))
        indices = random.integers(0, row.codes, (batch, height, width), np.int32)
        stage = PriorStage(prior, (height, width), 16 * height * width)
        flop = 3 * pixelcnn_flop(prior, height, width)
        return stage, options.prior, Batch(indices, labels, np.ones(batch, bool)), flop
    height, width, channels = row.shape
    model = options.autoencoder_model((height, width, channels))
    images = random.integers(0, 256, (batch, *row.shape), np.uint8)
    networks, search = autoencoder_flop(model)
    batch_of_noise = Batch(images, labels, np.ones(batch, bool))
    return AutoencoderStage(model, images[:1]), options.autoencoder, batch_of_noise, 3 * networks + search


def measure_memory(compiled: Any) -> tuple[int | None, str]:
    """Return the bytes of the fullest device and their source: its peak so far, or XLA's plan, None if it has none."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("peak_bytes_in_use" in of_device for of_device in stats):
        return max(of_device["peak_bytes_in_use"] for of_device in stats), "peak"
    return program_bytes(compiled), "planned"


def measure(name: str, dtype: str, batch: int, steps: int) -> Measurement:
    """Train in this process, on all its devices."""
    parallel, device = Parallel("pmap"), jax.devices()[0]
    parallel.check_batch_size("--batch", batch)
    stage, options, one_batch, flop = make_subject(ROWS[name], dtype, batch)
    on_cpu = device.platform == "cpu"
    group = min(steps, default_steps_per_dispatch())
    dispatches = math.ceil(steps / group)
    state = parallel.replicate(compiled_initial_state(stage, options, 0)())
    batches = parallel.shard_steps([Taken.by(one_batch, options.learning_rate)] * group)
    dispatch: Any = compiled_steps(stage, options, 0, parallel)
    compiled = dispatch.lower(state, batches).compile()
    state, reports = jax.block_until_ready(compiled(state, batches))
    before, start = read(), time.perf_counter()
    for _ in range(dispatches):
        state, reports = compiled(state, batches)
    loss = float(jax.device_get(reports.loss)[-1])  # waits for all dispatches
    seconds = (time.perf_counter() - start) / (dispatches * group)
    others = share_of_others(before, read())
    memory, memory_source = measure_memory(compiled)
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
        others=others,
    )


def measure_in_new_process(name: str, dtype: str, batch: int, steps: int) -> Measurement:
    """Run `measure` in a new process; raise UserError with its last line of output if it fails."""
    command = [sys.executable, "-m", "benchmarks.accelerator", "--measure"]
    command += [f"--rows={name}", f"--dtypes={dtype}", f"--batch={batch}", f"--steps={steps}"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise UserError(
            f"{name} in {dtype} with a batch of {batch} ended with status {done.returncode}: "
            f"{lines[-1].removeprefix('error: ')}"
        )
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


# The table


def cells(measurement: Measurement) -> str:
    """Return a row of the table."""
    m = measurement
    memory = "unknown" if m.memory_bytes is None else f"{m.memory_bytes / _MIB:,.0f} {m.memory_source}"
    rate = f"{m.images_per_second:,.0f}" if m.images_per_second >= 100 else f"{m.images_per_second:.3g}"
    return (
        f"{ROWS[m.row].title} | {m.dtype} | {m.batch} | {rate} | {1e3 * m.seconds_per_step:,.1f} | "
        f"{m.flop_per_image / 1e6:,.1f} | {m.peak / 1e12:,.2f} {m.peak_source} | {m.utilisation:.1%} | "
        f"{memory} | {m.others:.0%}"
    )


def stored_cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table, from one of the JSON file."""
    fields = {field.name for field in dataclasses.fields(Measurement)}
    return cells(Measurement(**{name: value for name, value in row.items() if name in fields})).split(" | ")


def conditions(measurement: Measurement) -> str:
    """Return one line that describes the conditions of the measurement."""
    m = measurement
    cores = f", {number_of_cores()} cores" if m.platform == "cpu" else ""
    return (
        f"{m.num_devices} × {m.device_kind} ({m.platform}{cores}); jax {jax.__version__}; "
        f"{m.steps_per_dispatch} steps per dispatch"
    )


def record(measurement: Measurement) -> dict[str, Any]:
    """Return a row of the JSON file."""
    return {
        **dataclasses.asdict(measurement),
        "work": ROWS[measurement.row].title,
        "images_per_second": measurement.images_per_second,
        "utilisation": measurement.utilisation,
    }


# The command line


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options, splitting lists; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    ordinary = ",".join(name for name, row in ROWS.items() if not row.extra)
    extra = ",".join(name for name, row in ROWS.items() if row.extra)
    parser.add_argument("--rows", default=ordinary, help=f"default %(default)s; there are also {extra}")
    parser.add_argument("--dtypes", default=",".join(COMPUTE_DTYPES), help="default %(default)s")
    parser.add_argument("--batch", help="global batch sizes for every row; default: each row's own")
    parser.add_argument("--steps", type=int, default=20, help="timed steps per row, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers to this file")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # set when starting the processes
    options = parser.parse_args(arguments)
    options.rows = chosen("--rows", options.rows, "row", ROWS)
    options.dtypes = chosen("--dtypes", options.dtypes, "dtype", COMPUTE_DTYPES)
    options.batch = list_integers("--batch", options.batch) if options.batch is not None else None
    check_at_least(options, steps=1)
    check_json(options.json)
    return options


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    options = parse(arguments)
    if options.measure:
        (name,), (dtype,), (batch,) = options.rows, options.dtypes, options.batch
        set_cpu_options()
        try:
            measurement = measure(name, dtype, batch, options.steps)
        except jax.errors.JaxRuntimeError as error:  # out of memory, for example
            raise UserError(str(error).splitlines()[0]) from error
        print(json.dumps(dataclasses.asdict(measurement)))
        return
    measurements: list[Measurement] = []
    for name in options.rows:
        for batch in options.batch or [ROWS[name].batch]:
            for dtype in options.dtypes:
                measurement = measure_in_new_process(name, dtype, batch, options.steps)
                if not measurements:
                    print(f"{conditions(measurement)}\n\n| {HEADER} |\n|{'---|' * (HEADER.count('|') + 1)}")
                print(f"| {cells(measurement)} |", flush=True)
                measurements.append(measurement)
                if options.json:  # written after every row, so that no row is lost if a later one fails
                    described = conditions(measurements[0])
                    report = {"conditions": described, "rows": [record(m) for m in measurements]}
                    write_json(Path(options.json), report)


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
