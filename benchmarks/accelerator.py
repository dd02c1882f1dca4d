"""How well training and sampling use a device: images per second, model FLOP utilisation and memory, as a table.

    python -m benchmarks.accelerator                                         # GPU, TPU or CPU, whatever JAX finds
    python -m benchmarks.accelerator --rows=train128,prior32 --dtypes=bfloat16 --batch=64,128,256 --json=here.json
    python -m benchmarks.accelerator --rows=train128 --kernels=12            # and which kernels take the time

The benchmark times what `train.py` runs, with the config `reference` in the row's size: the step under pmap over all
available devices, with a donated state, batches on the devices as uint8, and, except on CPU, ten steps per dispatch. A
batch of samples is drawn on one device, as by `sample.py`. Each row is measured in its own process, so
that its peak memory is its own, after a first dispatch that is not counted.

*Others* is the share of all cores that other processes took meanwhile: on CPU, above 3 %, a time proves little.

*FLOP per image* is that of the model, from the shapes of its convolutions and products: two per weight and position at
which the weight lies inside the image or grid (not in its padding). A training step counts as three forward passes, for
forward and backward together, plus the codebook search once, which has no backward pass; a sample counts as one.
Recomputation in the backward pass, additional work of another form of the same convolution, normalisation, activations,
losses and the optimizer are not counted.

*MFU* is FLOP per image times images per second, divided by the peak of all devices. The peak is the published one of
dense products (`benchmarks/measuring/peaks.py`): for float32 that of TF32 on NVIDIA GPUs that have it, and that of
bfloat16 on TPUs, because these are what JAX's default precision uses. For any other device, including CPUs, it is the
rate of one large matrix product in that dtype, and the table says "measured". MFU may then exceed 100 %, as it did in
bfloat16 on CPU, because one product is not necessarily the fastest operation of the device.

*Memory* is the peak of the fullest device if JAX reports it (GPU and TPU). Otherwise it is what XLA plans for the
compiled dispatch: arguments, results and temporaries, minus what they share with the donated state ("planned").

With --kernels, one more dispatch is traced. The second table has the longest kernels, with their share of all kernels'
time, and what the device did by the kernels' names; *busy* is that time relative to a step's (of all devices; on CPU,
of all threads).
"""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks.measuring.command import (
    Parser,
    check_at_least,
    check_json,
    chosen,
    list_integers,
    print_header,
    print_line,
)
from benchmarks.measuring.kernels import Kernel, by_work, trace
from benchmarks.measuring.peaks import measured_peak, published_peak
from benchmarks.measuring.quiet import read, share_of_others
from benchmarks.workloads.device_rows import ROWS, make_work
from hvq_jax.command import exit_status
from hvq_jax.devices import huge_pages
from hvq_jax.devices.cores import number_of_cores
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError
from hvq_jax.files import write_json
from hvq_jax.networks.layers import COMPUTE_DTYPES
from hvq_jax.training.dispatch import default_steps_per_dispatch

_ROOT = Path(__file__).parents[1]
_MIB = 2**20
HEADER = "work | dtype | batch | images/s | ms per step | MFLOP per image | peak TFLOP/s | MFU | memory MiB | others"


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
    flop_per_image: int  # of a training step, or of a sample
    peak: float  # FLOP/s of one device
    peak_source: str  # "published" or "measured"
    memory_bytes: int | None  # of one device; None where JAX says neither a peak nor a plan
    memory_source: str  # "peak" or "planned"
    final_loss: float | None  # None without training
    others: float  # share of all cores that other processes took during the timed steps
    kernels: list[list[Any]]  # name, calls and seconds per step, the longest first; none unless asked for

    @property
    def images_per_second(self) -> float:
        """Images per second over all devices."""
        return self.batch / self.seconds_per_step

    @property
    def utilisation(self) -> float:
        """Model FLOP utilisation; 1 at the peak."""
        return self.images_per_second * self.flop_per_image / (self.num_devices * self.peak)


def measure_memory(planned: int | None) -> tuple[int | None, str]:
    """Return the bytes of the fullest device and their source: its peak so far, or what XLA has planned."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("peak_bytes_in_use" in of_device for of_device in stats):
        return max(of_device["peak_bytes_in_use"] for of_device in stats), "peak"
    return planned, "planned"


def measure(name: str, dtype: str, batch: int, steps: int, kernels: bool = False) -> Measurement:
    """Measure a row in this process; `kernels` says whether to trace one more dispatch."""
    device = jax.devices()[0]
    work = make_work(ROWS[name], dtype, batch, min(steps, default_steps_per_dispatch()))
    dispatches = math.ceil(steps / work.steps)
    jax.block_until_ready(work.dispatch())
    before, start = read(), time.perf_counter()
    for _ in range(dispatches):
        result = work.dispatch()
    loss = work.loss(jax.block_until_ready(result))
    seconds = (time.perf_counter() - start) / (dispatches * work.steps)
    others = share_of_others(before, read())
    memory, memory_source = measure_memory(work.planned_bytes)
    published = published_peak(device.device_kind, dtype)
    traced = trace(lambda: jax.block_until_ready(work.dispatch())) if kernels else []
    return Measurement(
        row=name,
        dtype=dtype,
        batch=batch,
        device_kind=device.device_kind,
        platform=device.platform,
        num_devices=work.num_devices,
        steps=dispatches * work.steps,
        steps_per_dispatch=work.steps,
        seconds_per_step=seconds,
        flop_per_image=work.flop,
        peak=published or measured_peak(dtype, 1024 if device.platform == "cpu" else 8192),
        peak_source="published" if published else "measured",
        memory_bytes=memory,
        memory_source=memory_source,
        final_loss=loss,
        others=others,
        kernels=[[kernel.name, kernel.calls / work.steps, kernel.seconds / work.steps] for kernel in traced],
    )


def measure_in_new_process(name: str, dtype: str, batch: int, steps: int, kernels: bool = False) -> Measurement:
    """Run `measure` in a new process; raise UserError with its last line of output if it fails."""
    command = [sys.executable, "-m", "benchmarks.accelerator", "--measure"]
    command += [f"--rows={name}", f"--dtypes={dtype}", f"--batch={batch}", f"--steps={steps}"]
    command += [f"--kernels={int(kernels)}"]
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
        f"{m.steps_per_dispatch} step{'' if m.steps_per_dispatch == 1 else 's'} per dispatch"
    )


def print_kernels(measurement: Measurement, count: int) -> None:
    """Print the longest kernels of a row, and what all of them do."""
    m = measurement
    whole = sum(seconds for _, _, seconds in m.kernels)
    print(f"\n{ROWS[m.row].title}, {m.dtype}, batch {m.batch}: busy {whole / m.seconds_per_step:.0%}")
    shares = by_work(Kernel(name, calls, seconds) for name, calls, seconds in m.kernels)
    print(", ".join(f"{work} {share:.0%}" for work, share in shares.items()) + "\n")
    print_header(["kernel", "share", "calls per step", "ms per step"])
    for name, calls, seconds in m.kernels[:count]:
        print_line([f"`{name}`", f"{seconds / whole:.1%}", f"{calls:,.0f}", f"{1e3 * seconds:.3f}"])
    print(flush=True)


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
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no row is started; default: never")
    parser.add_argument("--kernels", type=int, default=0, help="trace a dispatch, and list so many kernels of each row")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers to this file")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # set when starting the processes
    options = parser.parse_args(arguments)
    options.rows = chosen("--rows", options.rows, "row", ROWS)
    options.dtypes = chosen("--dtypes", options.dtypes, "dtype", COMPUTE_DTYPES)
    options.batch = list_integers("--batch", options.batch) if options.batch is not None else None
    check_at_least(options, steps=1, minutes=0, kernels=0)
    check_json(options.json)
    return options


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    options = parse(arguments)
    if options.measure:
        (name,), (dtype,), (batch,) = options.rows, options.dtypes, options.batch
        set_cpu_options()
        try:
            measurement = measure(name, dtype, batch, options.steps, bool(options.kernels))
        except jax.errors.JaxRuntimeError as error:  # out of memory, for example
            raise UserError(str(error).splitlines()[0]) from error
        print(json.dumps(dataclasses.asdict(measurement)))
        return
    measurements: list[Measurement] = []
    deadline = time.monotonic() + 60 * options.minutes
    for name, batch, dtype in _cases(options):
        if time.monotonic() > deadline:
            print(f"\n{name} in {dtype} with a batch of {batch} and what follows: no time left")
            break
        measurement = measure_in_new_process(name, dtype, batch, options.steps, bool(options.kernels))
        if not measurements:
            print(f"{conditions(measurement)}\n\n| {HEADER} |\n|{'---|' * (HEADER.count('|') + 1)}")
        print(f"| {cells(measurement)} |", flush=True)
        measurements.append(measurement)
        if options.json:  # written after every row, so that no row is lost if a later one fails
            report = {"conditions": conditions(measurements[0]), "rows": [record(m) for m in measurements]}
            write_json(Path(options.json), report)
    for measurement in measurements if options.kernels else ():
        print_kernels(measurement, options.kernels)


def _cases(options: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Yield row, batch and dtype of each measurement."""
    for name in options.rows:
        for batch in options.batch or [ROWS[name].batch]:
            yield from ((name, batch, dtype) for dtype in options.dtypes)


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
