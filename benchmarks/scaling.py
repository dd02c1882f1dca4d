"""The cost of the autoencoder's training step on 1, 2, 4 and 8 devices: memory, time, and traffic between devices.

    python -m benchmarks.scaling                          # two minutes on two cores
    python -m benchmarks.scaling --dim=256 --image=32,32,3

The devices are simulated on the CPU, with one process per number of devices, and share one global batch. Memory and
bytes are therefore those of real devices. The step time is not: eight devices on two cores say nothing about speed.

The share of collectives is measured in two ways. *Left out* is the time of the step minus that of the same step without
its reductions, which includes waiting for the slowest device. *Alone* is the time of the step's all-reduces, with the
same shapes, each waiting for the previous one, with nothing in between. All times are the shortest of several rounds in
which the three take turns, because other load on the machine can only increase them.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring.command import Parser, check_at_least, list_integers
from configs import default, reference
from hvq_jax.command import exit_status
from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.cores import number_of_cores
from hvq_jax.devices.parallel import DEVICES, Parallel
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError
from hvq_jax.latents import LATENTS
from hvq_jax.quantizers.codebook import MovingAverages
from hvq_jax.runs.options import RunOptions, from_dict
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.programs import compiled_initial_state
from hvq_jax.training.stage import Stage
from hvq_jax.training.state import TrainState, train_step

_ROOT = Path(__file__).parents[1]
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Reduction:
    """One all-reduce of the compiled step, which may reduce several arrays at once."""

    shapes: list[list[int]]
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The measurement for one number of devices; bytes are per device, times in seconds."""

    num_devices: int
    state_bytes: int  # parameters, Adam's moments, codebook and batch statistics
    parameter_bytes: int  # the part of `state_bytes` that is parameters
    batch_bytes: int  # of this device's slice
    temporary_bytes: int  # peak of activations, gradients and scratch space
    reductions: list[Reduction]
    required: dict[str, tuple[int, int]]  # see `list_required_reductions`
    step: float
    step_without_reductions: float
    reductions_alone: float


@dataclasses.dataclass(frozen=True)
class Subject:
    """The training step to measure, constructed as in `training.loop`."""

    stage: Stage
    options: RunOptions
    parallel: Parallel

    @staticmethod
    def from_options(chosen: argparse.Namespace) -> "Subject":
        """Return the step of the model selected on the command line."""
        config = (reference if chosen.config == "reference" else default).get_config(chosen.latent)
        config.latent.dim = chosen.dim
        config.latent.num_codes = chosen.codes
        config.latent.num_frequent = min(config.latent.num_frequent, chosen.codes)
        options = from_dict(config)
        model = options.autoencoder_model(tuple(chosen.image))
        stage = AutoencoderStage(model, np.zeros((1, *chosen.image), np.uint8))
        return Subject(stage, options, Parallel("pmap"))

    def state(self) -> TrainState:
        """Return the state at step 0, on every device."""
        return self.parallel.replicate(compiled_initial_state(self.stage, self.options.autoencoder, seed=0)())

    def compiled(self, state: TrainState, batch: Batch, axis_name: str | None) -> Any:
        """Return the compiled step; without `axis_name` each device trains on its slice without any reductions."""
        optimizer = self.options.autoencoder.make_optimizer(1000)
        step = partial(train_step, loss_function=self.stage.loss, optimizer=optimizer, seed=0, axis_name=axis_name)
        function: Any = self.parallel.compile(step)
        return function.lower(state, batch).compile()


def random_batch(batch_size: int, image_shape: tuple[int, ...]) -> Batch:
    """Return a global batch of noise; the cost of a step does not depend on the content of the images."""
    images = np.random.default_rng(0).integers(0, 256, (batch_size, *image_shape), np.uint8)
    return Batch(images, np.zeros(batch_size, np.int32), np.ones(batch_size, bool))


def list_reductions(program: str) -> list[Reduction]:
    """Return the all-reduces in the text of an optimised HLO module, in program order."""
    found = []
    for types in re.findall(r"^\s*(?:ROOT )?%?\S+ = (.+?) all-reduce(?:-start)?\(", program, re.MULTILINE):
        arrays = [
            ([int(size) for size in sizes.split(",") if size], int(bits))
            for bits, sizes in re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", types)
        ]
        num_bytes = sum(math.prod(shape) * bits // 8 for shape, bits in arrays)
        found.append(Reduction([shape for shape, _ in arrays], num_bytes))
    return found


def num_bytes(tree: Any) -> int:
    """Return the size of all arrays, which may be abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def list_required_reductions(subject: Subject, state: TrainState, batch: Batch) -> dict[str, tuple[int, int]]:
    """Return what the step must reduce according to its mathematics: name -> (arrays, bytes).

    Batch norm reduces the mean and then the variance forward, and their gradients backward.
    """
    model_state, counts = state.model_state, jax.ShapeDtypeStruct((subject.options.latent.num_codes,), jnp.int32)
    per_device = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    loss = partial(subject.stage.loss, key=jax.random.key(0), axis_name=None)
    _, (_, metrics) = jax.eval_shape(loss, state.params, model_state, per_device)
    learned = model_state.quantizer.learned
    averages = learned if isinstance(learned, MovingAverages) else None
    trees = {
        "gradients": state.params,
        "batch statistics, forward": model_state.batch_stats,
        "batch statistics, backward": model_state.batch_stats,
        "code counts": counts,
        "vectors drawn for revival": averages and averages.codes,
        "sums of the moving averages": averages and averages.sums,
        "metrics": metrics,
    }
    return {name: (len(jax.tree.leaves(tree)), num_bytes(tree)) for name, tree in trees.items()}


def make_chain(reductions: list[Reduction]) -> Callable[..., Any]:
    """Return a function for pmap that performs only these reductions, one after the other."""

    def run(_: Any, arrays: list[list[jax.Array]]) -> jax.Array:
        last = jnp.zeros(())
        for group in arrays:
            # XLA may not remove a product with zero, which could be NaN, so each reduction waits for the previous one.
            group = jax.lax.psum([array + 0.0 * last for array in group], DEVICES)
            last = sum((jnp.max(array) for array in group), jnp.zeros(()))
        return last

    return run


def shortest_times(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the shortest time in seconds of a call of each; they take turns, and the first round is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds.append(time.perf_counter() - start)
    return [min(seconds[1:]) for seconds in times]


def measure(options: argparse.Namespace) -> Measurement:
    """Measure on all devices of this process."""
    subject = Subject.from_options(options)
    parallel = subject.parallel
    parallel.check_batch_size("--batch", options.batch)
    state, batch = subject.state(), parallel.shard(random_batch(options.batch, tuple(options.image)))
    step = subject.compiled(state, batch, parallel.axis_name)
    without = subject.compiled(state, batch, None)
    reductions = list_reductions(step.as_text())
    count = parallel.num_devices
    arrays = [[np.ones((count, *shape), np.float32) for shape in reduction.shapes] for reduction in reductions]
    chain = parallel.compile(make_chain(reductions))
    ones = parallel.shard(arrays)
    times = shortest_times(
        [lambda: step(state, batch), lambda: without(state, batch), lambda: chain(None, ones)], options.steps
    )
    state_bytes = num_bytes(state)
    memory = step.memory_analysis()
    return Measurement(
        num_devices=count,
        state_bytes=state_bytes,
        parameter_bytes=num_bytes(state.params),
        batch_bytes=memory.argument_size_in_bytes - state_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        reductions=reductions,
        required=list_required_reductions(subject, state, batch),
        step=times[0],
        step_without_reductions=times[1],
        reductions_alone=times[2],
    )


def measure_in_new_process(arguments: list[str], num_devices: int) -> Measurement:
    """Run `measure` with this number of simulated devices in a new process; raise UserError if it fails."""
    command = [sys.executable, "-m", "benchmarks.scaling", *arguments, "--measure"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(num_devices)}
    done = subprocess.run(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"the measurement on {num_devices} devices failed; see above")
    fields = json.loads(done.stdout.splitlines()[-1])
    reductions = [Reduction(**reduction) for reduction in fields.pop("reductions")]
    return Measurement(reductions=reductions, **fields)


def print_table(header: str, rows: list[str]) -> None:
    """Print a Markdown table, with cells separated by `|`."""
    print(f"\n| {header} |\n|{'---|' * (header.count('|') + 1)}")
    for row in rows:
        print(f"| {row} |")


def print_devices(measurements: list[Measurement]) -> None:
    """Print memory and times, one row per number of devices."""
    rows = []
    for m in measurements:
        mib = [m.parameter_bytes, m.state_bytes, m.batch_bytes, m.temporary_bytes]
        left_out = max(0.0, 1 - m.step_without_reductions / m.step)  # negative values are noise
        rows.append(
            f"{m.num_devices} | {' | '.join(f'{x / _MIB:.2f}' for x in mib)} | {1e3 * m.step:.0f} | "
            f"{1e3 * m.step_without_reductions:.0f} | {left_out:.0%} | {1e3 * m.reductions_alone:.1f} | "
            f"{m.reductions_alone / m.step:.0%}"
        )
    print_table(
        "devices | parameters MiB | state MiB | batch MiB | activations and scratch MiB | step ms | "
        "without reductions ms | share, left out | reductions alone ms | share, alone",
        rows,
    )


def print_reductions(measurement: Measurement) -> None:
    """Print the traffic between devices per step: by the mathematics, and as compiled by XLA."""
    required = measurement.required
    rows = [f"{name} | {arrays} | {size:,}" for name, (arrays, size) in required.items() if arrays]
    arrays = sum(len(reduction.shapes) for reduction in measurement.reductions)
    compiled = sum(reduction.num_bytes for reduction in measurement.reductions)
    small = sum(reduction.num_bytes <= 64 * 1024 for reduction in measurement.reductions)
    rows += [
        f"sum | {sum(n for n, _ in required.values())} | {sum(size for _, size in required.values()):,}",
        f"compiled: {len(measurement.reductions)} all-reduces, {small} of at most 64 KiB | {arrays} | {compiled:,}",
    ]
    print_table("all-reduced in a step | arrays | bytes", rows)


def shape(text: str) -> list[int]:
    """Parse "H,W,C"."""
    sizes = [int(size) for size in text.split(",")]
    if len(sizes) != 3:
        raise ValueError(text)
    return sizes


def main(arguments: list[str]) -> None:
    """Measure and print tables."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=["default", "reference"], default="default", help="codebook and optimizer")
    parser.add_argument("--latent", choices=tuple(LATENTS), default="projected", help="default %(default)s")
    parser.add_argument("--image", type=shape, default=[28, 28, 1], metavar="H,W,C", help="default 28,28,1")
    parser.add_argument("--dim", type=int, default=64, help="D, default %(default)s")
    parser.add_argument("--codes", type=int, default=512, help="K, default %(default)s")
    parser.add_argument("--batch", type=int, default=128, help="global batch, default %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="timed rounds, default %(default)s")
    parser.add_argument("--devices", default="1,2,4,8", help="default %(default)s")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # set when starting the processes
    options = parser.parse_args(arguments)
    check_at_least(options, dim=1, codes=1, batch=1, steps=1)
    counts = list_integers("--devices", options.devices)
    set_cpu_options()
    if options.measure:
        print(json.dumps(dataclasses.asdict(measure(options))))
        return
    measurements = [measure_in_new_process(arguments, count) for count in counts]
    print(f"{number_of_cores()} cores, simulated devices; jax {jax.__version__}; {' '.join(arguments)}")
    print_devices(measurements)
    print_reductions(measurements[-1])


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
