"""Runs at once in several threads of one process."""

import contextlib
import threading
from collections.abc import Iterator

from hvq_jax.devices.parallel import Parallel
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.progress import lines_named

_changing = threading.Lock()
_running: list[Parallel] = []


@contextlib.contextmanager
def among_others(name: str, parallel: Parallel, *, profiled: bool) -> Iterator[None]:
    """Count as a run of this process during the block.

    Lines printed in another thread than the main one start with `name` there.

    Raises UserError beside another run, if either uses several devices, or if this one is `profiled`: JAX has one
    profiler, and the devices would wait for each other for ever, some of them in a program of one run and some in one
    of the other.
    """
    with _changing:
        if _running and any(each.num_devices > 1 for each in [*_running, parallel]):
            raise ArgumentError(
                f"parallel={parallel.form}",
                "another run of this process is not over, and runs at once cannot share several devices: choose "
                "parallel=jit for all of them",
            )
        if _running and profiled:
            raise UserError("a run is profiled only while no other run of this process is: start it alone")
        _running.append(parallel)
    try:
        with contextlib.nullcontext() if threading.current_thread() is threading.main_thread() else lines_named(name):
            yield
    finally:
        with _changing:
            _running.remove(parallel)
