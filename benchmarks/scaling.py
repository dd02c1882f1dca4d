"""What the autoencoder's training step costs on 1, 2, 4 and 8 devices: memory, time, and what crosses between them.

    python -m benchmarks.scaling                          # two minutes on two cores
    python -m benchmarks.scaling --dim=256 --image=32,32,3

The devices are simulated on the CPU, a process for each number of them, and share one global batch. So the memory and
the bytes are those of so many devices; the step time is not: eight of them on two cores say nothing of speed.

The share of collectives is measured twice. *Left out* is the time of the step less that of the same step without its
reductions, which includes waiting for the slowest device. *Alone* is the time of the step's own list of all-reduces, by
shape, each waiting for the one before, with nothing between them. All times are the shortest of several rounds in which
the three take turns: what else the machine does can only add to them.
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

from configs import default, reference
from hvq_jax.data.pipeline import Batch
from hvq_jax.devices.parallel import DEVICES, Parallel
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError
from hvq_jax.latents import MODES
from hvq_jax.runs import options as configuration
from hvq_jax.training.autoencoder_stage import autoencoder_stage
from hvq_jax.training.loop import Stage, initial_state, optimizer_of
from hvq_jax.training.state import TrainState, train_step

_ROOT = Path(__file__).parents[1]
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Reduction:
    """One all-reduce of the compiled step: it may reduce several arrays at once."""

    shapes: list[list[int]]
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One number of devices; bytes are per device, times in seconds."""

    num_devices: int
    state_bytes: int  # parameters, Adam's moments, codebook and batch statistics
    parameter_bytes: int  # thereof
    batch_bytes: int  # this device's share
    temporary_bytes: int  # activations, gradients and scratch, at their peak
    reductions: list[Reduction]
    kinds: dict[str, tuple[int, int]]  # see `kinds_of`
    step: float
    step_without_reductions: float
    reductions_alone: float


@dataclasses.dataclass(frozen=True)
class Subject:
    """The training step under measurement, as `training.loop` puts it together."""

    stage: Stage
    config: Any
    parallel: Parallel

    @staticmethod
    def of(options: argparse.Namespace) -> "Subject":
        """The step of the model that the command line asks for."""
        config = (reference if options.config == "reference" else default).get_config(options.latent)
        config.latent.dim = options.dim
        config.latent.num_codes = options.codes
        model = configuration.autoencoder_of(config, tuple(options.image))
        return Subject(autoencoder_stage(model, np.zeros((1, *options.image), np.uint8)), config, Parallel("pmap"))

    def state(self) -> TrainState:
        """The state at step 0, on every device."""
        options = configuration.fit_options_of(self.config.autoencoder)
        return self.parallel.replicate(jax.jit(partial(initial_state, self.stage, options, 1000, 0))())

    def compiled(self, state: TrainState, batch: Batch, axis_name: str | None) -> Any:
        """The compiled step; without `axis_name` each device trains on its own share, and nothing is reduced."""
        optimizer = optimizer_of(configuration.fit_options_of(self.config.autoencoder), 1000)
        step = partial(train_step, loss_function=self.stage.loss, optimizer=optimizer, seed=0, axis_name=axis_name)
        function: Any = self.parallel.compile(step)
        return function.lower(state, batch).compile()


def random_batch(batch_size: int, image_shape: tuple[int, ...]) -> Batch:
    """A global batch of noise: the cost of a step does not depend on what the images show."""
    images = np.random.default_rng(0).integers(0, 256, (batch_size, *image_shape), np.uint8)
    return Batch(images, np.zeros(batch_size, np.int32), np.ones(batch_size, bool))


def reductions_of(program: str) -> list[Reduction]:
    """The all-reduces in the text of an optimised HLO module, in the order of the program."""
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
    """Of all arrays, abstract ones too."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def kinds_of(subject: Subject, state: TrainState, batch: Batch) -> dict[str, tuple[int, int]]:
    """What the step has to reduce, by its mathematics: name -> (arrays, bytes).

    Batch norm takes the mean and then the variance forward, and their gradients backward.
    """
    model_state, counts = state.model_state, jax.ShapeDtypeStruct((subject.config.latent.num_codes,), jnp.int32)
    per_device = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    loss = partial(subject.stage.loss, key=jax.random.key(0), axis_name=None)
    _, (_, metrics) = jax.eval_shape(loss, state.params, model_state, per_device)
    trees = {
        "gradients": state.params,
        "batch statistics, forward": model_state.batch_stats,
        "batch statistics, backward": model_state.batch_stats,
        "code counts": counts,
        "vectors drawn for revival": model_state.averages and model_state.averages.codes,
        "sums of the moving averages": model_state.averages and model_state.averages.sums,
        "metrics": metrics,
    }
    return {name: (len(jax.tree.leaves(tree)), num_bytes(tree)) for name, tree in trees.items()}


def chain_of(reductions: list[Reduction]) -> Callable[..., Any]:
    """A function for pmap that makes just these reductions, one after the other."""

    def run(_: Any, arrays: list[list[jax.Array]]) -> jax.Array:
        last = jnp.zeros(())
        for group in arrays:
            # XLA may not drop a product with zero, for it could be NaN: so each reduction waits for the one before.
            group = jax.lax.psum([array + 0.0 * last for array in group], DEVICES)
            last = sum((jnp.max(array) for array in group), jnp.zeros(()))
        return last

    return run


def shortest_times(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Seconds a call of each, the shortest of rounds in which they take turns; the first round is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds.append(time.perf_counter() - start)
    return [min(seconds[1:]) for seconds in times]


def measure(options: argparse.Namespace) -> Measurement:
    """Measures on all devices of this process."""
    subject = Subject.of(options)
    parallel = subject.parallel
    parallel.check_batch_size("--batch", options.batch)
    state, batch = subject.state(), parallel.shard(random_batch(options.batch, tuple(options.image)))
    step = subject.compiled(state, batch, parallel.axis_name)
    without = subject.compiled(state, batch, None)
    reductions = reductions_of(step.as_text())
    count = parallel.num_devices
    arrays = [[np.ones((count, *shape), np.float32) for shape in reduction.shapes] for reduction in reductions]
    chain = parallel.compile(chain_of(reductions))
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
        kinds=kinds_of(subject, state, batch),
        step=times[0],
        step_without_reductions=times[1],
        reductions_alone=times[2],
    )


def in_a_process_of_its_own(options: argparse.Namespace, num_devices: int) -> Measurement:
    """`measure` with so many simulated devices; UserError with its last line where it fails."""
    command = [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:], "--measure"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(num_devices)}
    done = subprocess.run(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"the measurement on {num_devices} devices failed, see above")
    fields = json.loads(done.stdout.splitlines()[-1])
    reductions = [Reduction(**reduction) for reduction in fields.pop("reductions")]
    return Measurement(reductions=reductions, **fields)


def print_table(header: str, rows: list[str]) -> None:
    """A table in Markdown, cells parted by `|`."""
    print(f"\n| {header} |\n|{'---|' * (header.count('|') + 1)}")
    for row in rows:
        print(f"| {row} |")


def print_devices(measurements: list[Measurement]) -> None:
    """Memory and times, a row a number of devices."""
    rows = []
    for m in measurements:
        mib = [m.parameter_bytes, m.state_bytes, m.batch_bytes, m.temporary_bytes]
        left_out = max(0.0, 1 - m.step_without_reductions / m.step)  # below zero it is noise
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
    """What crosses between devices in a step: by the mathematics, and as XLA has compiled it."""
    kinds = measurement.kinds
    rows = [f"{name} | {arrays} | {size:,}" for name, (arrays, size) in kinds.items() if arrays]
    arrays = sum(len(reduction.shapes) for reduction in measurement.reductions)
    compiled = sum(reduction.num_bytes for reduction in measurement.reductions)
    small = sum(reduction.num_bytes <= 64 * 1024 for reduction in measurement.reductions)
    rows += [
        f"sum | {sum(n for n, _ in kinds.values())} | {sum(size for _, size in kinds.values()):,}",
        f"compiled: {len(measurement.reductions)} all-reduces, {small} of at most 64 KiB | {arrays} | {compiled:,}",
    ]
    print_table("all-reduced in a step | arrays | bytes", rows)


def shape(text: str) -> list[int]:
    """H,W,C."""
    sizes = [int(size) for size in text.split(",")]
    if len(sizes) != 3:
        raise ValueError(text)
    return sizes


def main() -> int:
    """Measures and prints; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=["default", "reference"], default="default", help="codebook and optimizer")
    parser.add_argument("--latent", choices=MODES, default="projected", help="default %(default)s")
    parser.add_argument("--image", type=shape, default=[28, 28, 1], metavar="H,W,C", help="default 28,28,1")
    parser.add_argument("--dim", type=int, default=64, help="D, default %(default)s")
    parser.add_argument("--codes", type=int, default=512, help="K, default %(default)s")
    parser.add_argument("--batch", type=int, default=128, help="over all devices, default %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="timed rounds, default %(default)s")
    parser.add_argument("--devices", default="1,2,4,8", help="default %(default)s")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args()
    set_cpu_options()
    try:
        if options.measure:
            print(json.dumps(dataclasses.asdict(measure(options))))
            return 0
        measurements = [in_a_process_of_its_own(options, int(count)) for count in options.devices.split(",")]
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(os.sched_getaffinity(0))} cores, simulated devices; jax {jax.__version__}; {' '.join(sys.argv[1:])}")
    print_devices(measurements)
    print_reductions(measurements[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
