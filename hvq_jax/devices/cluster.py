"""Training with several processes: joining a cluster, agreeing on errors, and logging from one process.

Every process runs the same program on its own slice of each batch; only process 0 writes logs, metrics and plots.
"""

import contextlib
import dataclasses
import glob
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hvq_jax.devices.rendezvous import meet
from hvq_jax.errors import UserError
from hvq_jax.progress import print_line, print_warning

# A process that has not responded for this long counts as dead, and the other processes exit.
HEARTBEAT_SECONDS = 30
# Processes that have not all started after this long exit; HVQ_JOIN_SECONDS sets another limit.
JOIN_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Membership:
    """The place of this process in a cluster; fields that are None are detected by `jax.distributed`."""

    coordinator: str | None = None  # HOST:PORT of process 0
    num_processes: int | None = None
    process_id: int | None = None
    local_device: int | None = None  # the one GPU of this process; None: all GPUs of the machine


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the cluster given by the arguments or the environment; do nothing for a single process.

    Call this before anything uses a device. Where the address of process 0 is known, it first waits until all processes
    have started, for HVQ_JOIN_SECONDS (60 by default); otherwise JAX waits for them.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: number of processes in the cluster.
        process_id: index of this process.

    Raises:
        UserError: the cluster cannot be joined.
    """
    explicit = Membership(coordinator, num_processes, process_id)
    membership = find_membership(os.environ, explicit, has_tpu=_has_tpu())
    if membership is None:
        return
    if membership.coordinator and membership.num_processes and membership.process_id is not None:
        seconds = _number(os.environ, "HVQ_JOIN_SECONDS") or JOIN_SECONDS
        meet(membership.coordinator, membership.num_processes, membership.process_id, seconds=seconds)
    try:
        jax.distributed.initialize(
            membership.coordinator,
            membership.num_processes,
            membership.process_id,
            membership.local_device,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        where = membership.coordinator or "the coordinator from the environment"
        raise UserError(f"cannot join the cluster at {where}: {' '.join(str(error).split())}") from None


def find_membership(environment: Mapping[str, str], explicit: Membership, *, has_tpu: bool) -> Membership | None:
    """Return the place of this process in a cluster, or None if it runs alone.

    Sources are tried in this order: `explicit` (flags), HVQ_COORDINATOR, HVQ_NUM_PROCESSES and HVQ_PROCESS_ID
    (Kubernetes), Open MPI, SLURM, TPU pods.

    Raises:
        UserError: a value is missing or not a number.
    """
    coordinator = environment.get("HVQ_COORDINATOR") if explicit.coordinator is None else explicit.coordinator
    if coordinator == "":  # as an unset variable of the shell leaves it; one process alone was not meant
        raise UserError("--coordinator=: must be HOST:PORT of process 0 (or HVQ_COORDINATOR in the environment)")
    count = _number(environment, "HVQ_NUM_PROCESSES", explicit.num_processes)
    index = _number(environment, "HVQ_PROCESS_ID", explicit.process_id)
    if (mpi_count := _number(environment, "OMPI_COMM_WORLD_SIZE") or 1) > 1:
        return _under_open_mpi(environment, coordinator, mpi_count)
    if coordinator is not None or count is not None or index is not None:
        if coordinator is None or count is None or index is None:
            raise UserError(
                "--coordinator=HOST:PORT, --num_processes=N and --process_id=I (or HVQ_COORDINATOR, HVQ_NUM_PROCESSES "
                "and HVQ_PROCESS_ID in the environment) must be given together: add the missing ones"
            )
        if not re.fullmatch(r".+:[0-9]{1,5}", coordinator):
            raise UserError(f"--coordinator={coordinator}: must be HOST:PORT of process 0")
        if not 0 <= index < count:
            raise UserError(f"--process_id={index}: must be between 0 and {count - 1} for --num_processes={count}")
        return Membership(coordinator, count, index) if count > 1 else None
    # Outside a job step (in the batch script or in an allocation's shell) there is one process, whatever was allocated.
    if "SLURM_STEP_NODELIST" in environment and (_number(environment, "SLURM_NTASKS") or 1) > 1:
        return Membership()
    return Membership() if has_tpu else None


def _under_open_mpi(environment: Mapping[str, str], coordinator: str | None, count: int) -> Membership:
    """Return the rank and size given by Open MPI; only version 4 also tells JAX where process 0 is."""
    index = _number(environment, "OMPI_COMM_WORLD_RANK")
    local = _number(environment, "OMPI_COMM_WORLD_LOCAL_RANK")
    if coordinator is None and "OMPI_MCA_orte_hnp_uri" in environment:
        return Membership()
    if coordinator is None:
        # Version 5 names a job after the host that started it, which runs rank 0 by default.
        job = re.fullmatch(r"prterun-(.+)-(\d+)@\d+", environment.get("PMIX_NAMESPACE", ""))
        if job is None:
            raise UserError("this Open MPI does not provide the address of rank 0: add --coordinator=HOST:PORT")
        on_one_host = _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE") == count
        coordinator = f"{'localhost' if on_one_host else job[1]}:{61440 + int(job[2]) % 4096}"
    return Membership(coordinator, count, index, local)


def _number(environment: Mapping[str, str], name: str, given: int | None = None) -> int | None:
    text = environment.get(name)
    if given is not None or text is None:
        return given
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UserError(f"environment variable {name}={text}: must be an integer")
    return int(text)


def _has_tpu() -> bool:
    # Querying JAX would start the backend, after which it is too late to join.
    return importlib.util.find_spec("libtpu") is not None and bool(
        glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    )


def is_first() -> bool:
    """Return whether this is process 0, which writes logs, metrics and plots."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Print a line on process 0 only."""
    if is_first():
        print_line(line)


def warn(line: str) -> None:
    """Print a line on process 0 only, even if it is quiet."""
    if is_first():
        print_warning(line)


def wait_for_all(name: str) -> None:
    """Block until every process has reached this call, so that the others see what the first has written."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def true_on_all(condition: bool) -> bool:
    """Return whether `condition` holds on every process."""
    return (
        bool(np.all(multihost_utils.process_allgather(np.array(condition)))) if jax.process_count() > 1 else condition
    )


def check_agreement(values: Mapping[str, Any]) -> None:
    """Raise UserError, on every process, if `values` (JSON) are not the same on all of them; it names what differs."""
    if jax.process_count() == 1:
        return
    first, *others = (json.loads(text) for text in _gather_texts(json.dumps(values)))
    for process, theirs in enumerate(others, start=1):
        for key in sorted({*first, *theirs}):
            if first.get(key) != theirs.get(key):
                raise UserError(
                    f"process {process} has {key}={theirs.get(key)}, process 0 has {first.get(key)}: start all "
                    "processes with the same command, code and data"
                )


def _gather_texts(text: str) -> list[str]:
    """Return the text that each process gives, in their order."""
    content = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(content)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(content)] = content
    gathered = multihost_utils.process_allgather(padded)
    return [bytes(row[:length]).decode() for row, length in zip(gathered, lengths, strict=True)]


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Run a block on every process and raise on all of them if it fails on one. The block may not use collectives.

    Raises:
        UserError: the block failed on other processes only; the message names the first of them.
        Exception: whatever the block raised on this process.
    """
    failure: Exception | None = None
    try:
        yield
    except (UserError, OSError) as error:
        failure = error
    if jax.process_count() > 1:
        failed = np.flatnonzero(multihost_utils.process_allgather(np.array(failure is not None)))
        if failure is None and len(failed):
            raise UserError(f"stopped because process {failed[0]} failed: see its message")
    if failure is not None:
        raise failure
