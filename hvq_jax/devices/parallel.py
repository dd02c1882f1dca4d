"""Devices: where the state is placed, how a batch is split, and how a per-device function is compiled.

A step has two forms: `pmap` over all devices of all processes (axis `DEVICES`), or plain `jit` on one device.
"""

import collections
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.registry import check_choice

DEVICES = "devices"
FORMS = ("pmap", "jit")

_BATCHES_AHEAD = 2  # kept on the device, so that a step never waits for a transfer


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How to run: `form` is "pmap" (all devices) or "jit" (one device of a single process).

    The one device is the first, or that of `jax.default_device`, which may be another one in each thread.

    >>> Parallel("vmap")
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: form=vmap: choose one of pmap, jit
    """

    form: str = "pmap"

    def __post_init__(self) -> None:
        """Check that the form is known; raise ArgumentError."""
        check_choice("form", self.form, FORMS)

    @property
    def axis_name(self) -> str | None:
        """Name of the axis to reduce over; None under plain jit."""
        return DEVICES if self.form == "pmap" else None

    @property
    def num_devices(self) -> int:
        """Number of devices that share a batch, over all processes."""
        return jax.device_count() if self.form == "pmap" else 1

    @property
    def share(self) -> dict[str, int]:
        """This process's slice of each global batch, as keyword arguments of the functions in `data.pipeline`."""
        return {"process_index": jax.process_index(), "process_count": jax.process_count()}

    @cached_property
    def mesh(self) -> Mesh:
        """All devices in the order of `pmap`, which is also that of the slices of a global batch."""
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(devices), (DEVICES,))

    def _placement(self, spec: PartitionSpec) -> Sharding:
        if self.form == "jit":
            chosen = jax.config.jax_default_device  # type: ignore[attr-defined]  # that of this thread
            return SingleDeviceSharding(chosen if isinstance(chosen, jax.Device) else jax.local_devices()[0])
        # Only this process's devices, but taken from the mesh of all: another mesh would compile the step twice.
        return NamedSharding(self.mesh.local_mesh, spec)

    def compile(
        self,
        function: Callable[..., Any],
        *,
        donate_state: bool = False,
        sharded_result: bool = False,
    ) -> Callable[..., Any]:
        """Compile `function(state, batch) -> pytree`.

        Args:
            function: its result must be equal on all devices, by reductions over `axis_name`, or split like the batch.
            donate_state: reuse the memory of `state` for the result.
            sharded_result: whether the result is split like the batch.
        """
        donated = (0,) if donate_state else ()
        if self.form == "jit":
            return jax.jit(function, donate_argnums=donated)
        out_axes = 0 if sharded_result else None
        return jax.pmap(function, DEVICES, in_axes=(None, 0), out_axes=out_axes, donate_argnums=donated)

    def replicate(self, state: Any) -> Any:
        """Place `state` on every device, laid out as the compiled step returns it, so that the step compiles once."""
        return jax.device_put(state, self._placement(PartitionSpec()))

    def replicated_shapes(self, state: Any) -> Any:
        """Return the shapes and dtypes of `state`, of one process, with the placement that `replicate` gives it."""
        placement = self._placement(PartitionSpec())
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement), state)

    def shard(self, batch: Any) -> Any:
        """Place this process's part of a batch, with leaves `[B / processes, ...]`, on its devices.

        Under pmap the leaves become `[local devices, B / devices, ...]`.
        """
        if self.form == "pmap":
            batch = jax.tree.map(_cut, batch)
        return jax.device_put(batch, self._placement(PartitionSpec(DEVICES)))

    def shard_steps(self, batches: Sequence[Any]) -> Any:
        """Place this process's parts of several batches, with leaves `[B / processes, ...]`, on its devices.

        The leaves become `[steps, B, ...]`, or under pmap `[local devices, steps, B / devices, ...]`.
        """
        if self.form == "pmap":
            batches = [jax.tree.map(_cut, batch) for batch in batches]
        axis = 1 if self.form == "pmap" else 0
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis), *batches)
        return jax.device_put(stacked, self._placement(PartitionSpec(DEVICES)))

    def prefetch(self, batches: Iterable[Any], place: Callable[[Any], Any] | None = None) -> Iterator[Any]:
        """Yield `place` (by default `shard`) of each batch, computed a few batches ahead of use."""
        place = place or self.shard
        ahead: collections.deque[Any] = collections.deque()
        for batch in batches:
            ahead.append(place(batch))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft()
        yield from ahead

    def gather(self, result: Any) -> Any:
        """Undo `shard` on a sharded result, on every process: return numpy leaves `[B, ...]` of the global batch."""
        result = jax.device_get(result)
        if self.form == "jit":
            return result
        result = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), result)
        return multihost_utils.process_allgather(result, tiled=True) if jax.process_count() > 1 else result

    @cached_property
    def _checksums(self) -> Callable[..., jax.Array]:
        return self.compile(lambda state, _: jax.lax.all_gather(checksum(state), DEVICES))

    def drifted_devices(self, state: Any) -> list[int]:
        """Return the devices, by their number in a batch, whose copy of `state` differs from the first device's."""
        if self.num_devices == 1:
            return []
        nothing = np.zeros(jax.local_device_count())  # pmap requires an argument that is split
        checksums = np.asarray(self._checksums(state, nothing))
        return [int(device) for device in np.flatnonzero(checksums != checksums[0])]

    def check(self) -> None:
        """Raise UserError if the current processes cannot run in this form."""
        if self.form == "jit" and jax.process_count() > 1:
            raise ArgumentError("parallel=jit", f"uses one device; run {jax.process_count()} processes with pmap")
        if jax.device_count() != jax.local_device_count() * jax.process_count():
            raise UserError(
                f"the {jax.process_count()} processes have {jax.device_count()} devices in total, this one "
                f"{jax.local_device_count()}: give every process the same number"
            )

    def check_batch_size(self, key: str, batch_size: int, *, num_parts: int = 1) -> None:
        """Raise UserError unless each of `num_parts` is a multiple of the number of devices; `key` names the option."""
        smallest = self.num_devices * num_parts
        if batch_size < smallest or batch_size % smallest:
            times = f" times {num_parts}, the number of parts" if num_parts > 1 else ""
            raise ArgumentError(
                f"{key}={batch_size}",
                f"must be a multiple of {self.num_devices}, the number of devices{times}; or use one device with "
                "parallel=jit",
            )


def find_devices() -> None:
    """Let JAX look for its devices; raise UserError if it cannot use those that it was told to."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["none of these is installed or present"])[0]
        raise UserError(
            f"JAX finds no device with JAX_PLATFORMS={platforms} ({reason}): choose another, such as cpu, or unset it"
        ) from None


def _cut(x: Any) -> Any:
    """Split an array into one slice per device of this process, along a new leading axis."""
    count = jax.local_device_count()
    return x.reshape(count, len(x) // count, *x.shape[1:])


def checksum(tree: Any) -> jax.Array:
    """Return a checksum `[]` uint32 of the bits of all leaves. Any flip of a single bit changes it, as do most others.

    Each 32-bit word is multiplied by a distinct odd number. The products are added modulo 2³², which is exact in any
    order.
    """
    return sum((_leaf_checksum(leaf) for leaf in jax.tree.leaves(tree)), jnp.uint32(0))


def _leaf_checksum(leaf: jax.Array) -> jax.Array:
    bits = jnp.asarray(leaf).view(f"uint{8 * leaf.dtype.itemsize}").astype(jnp.uint32)
    factors = 2 * jax.lax.iota(jnp.uint32, bits.size) + 1
    return jnp.sum(bits.reshape(-1) * factors, dtype=jnp.uint32)
