"""Host time to dispatch a training step: pmap compared with jit of shard_map, in one process and in two.

    python -m benchmarks.dispatch

The step adds one to a state with as many small arrays as a training state, so only the dispatch is measured. Each
process has one simulated device; both processes are on this machine and communicate over loopback.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from benchmarks.measuring.command import Parser, check_at_least
from hvq_jax.command import exit_status
from hvq_jax.devices.cluster import is_first, join
from hvq_jax.devices.parallel import DEVICES, Parallel
from hvq_jax.errors import UserError

_ROOT = Path(__file__).parents[1]


def step(state: list[jax.Array], batch: jax.Array) -> list[jax.Array]:
    """Add one to every array of the state."""
    del batch
    return [x + 1 for x in state]


def median_ms(function: Callable[..., Any], state: Any, batch: Any, repetitions: int) -> float:
    """Return the median time in milliseconds from call to result, excluding the first calls, which compile."""
    times = []
    for _ in range(repetitions + 5):
        start = time.perf_counter()
        state = jax.block_until_ready(function(state, batch))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[5:])


def measure(options: argparse.Namespace) -> None:
    """Measure in this process, one of `--processes`; the first one prints."""
    if options.processes > 1:
        join(f"localhost:{options.port}", options.processes, options.measure)
    parallel = Parallel("pmap")
    state = [np.ones(8, np.float32) for _ in range(options.arrays)]
    batch = np.zeros((1, 1), np.float32)
    pmapped = median_ms(
        parallel.compile(step, donate_state=True), parallel.replicate(state), parallel.shard(batch), options.repetitions
    )
    specs = (PartitionSpec(), PartitionSpec(DEVICES))
    sharded = jax.shard_map(step, mesh=parallel.mesh, in_specs=specs, out_specs=PartitionSpec())
    state, batch = multihost_utils.host_local_array_to_global_array((state, batch), parallel.mesh, specs)
    jitted = median_ms(jax.jit(sharded, donate_argnums=0), state, batch, options.repetitions)
    if is_first():
        print(f"| {options.processes} | {pmapped:.2f} | {jitted:.2f} |", flush=True)


def start(count: int, port: int, arguments: list[str]) -> list[subprocess.Popen[bytes]]:
    """Start this program as `count` processes of one cluster."""
    command = [sys.executable, "-m", "benchmarks.dispatch", *arguments, f"--processes={count}", f"--port={port}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return [
        subprocess.Popen([*command, f"--measure={i}"], cwd=_ROOT, env=environment, stderr=subprocess.DEVNULL)
        for i in range(count)
    ]


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", type=int, default=200, help="arrays in the state, default %(default)s")
    parser.add_argument("--repetitions", type=int, default=100, help="default %(default)s")
    for name in ("processes", "port", "measure"):  # set by this program when it starts the processes
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    check_at_least(options, arrays=1, repetitions=1)
    if options.measure is not None:
        measure(options)
        return
    print("| processes | pmap ms | jit(shard_map) ms |\n|---|---|---|", flush=True)
    for count in (1, 2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        if any([process.wait() for process in start(count, port, arguments)]):
            raise UserError(f"one of {count} processes failed")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
