"""Devices: where the state lives, how a batch is cut, and how a per-device function becomes a compiled one.

Two forms of the same step: `pmap` over all local devices (axis `DEVICES`), or plain `jit` on one device.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hvq_jax.errors import UserError

DEVICES = "devices"
FORMS = ("pmap", "jit")


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How to run: `form` is "pmap" (all local devices) or "jit" (the first device)."""

    form: str = "pmap"

    @property
    def axis_name(self) -> str | None:
        """The axis to reduce over, None under plain jit."""
        return DEVICES if self.form == "pmap" else None

    @property
    def num_devices(self) -> int:
        """Devices that share a batch."""
        return jax.local_device_count() if self.form == "pmap" else 1

    def compile(
        self,
        function: Callable[..., Any],
        *,
        donate_state: bool = False,
        sharded_result: bool = False,
    ) -> Callable[..., Any]:
        """Compiles `function(state, batch) -> pytree`.

        Its result is either equal on all devices, by reductions over `axis_name`, or cut like the batch.
        """
        donated = (0,) if donate_state else ()
        if self.form == "jit":
            return jax.jit(function, donate_argnums=donated)
        out_axes = 0 if sharded_result else None
        return jax.pmap(function, DEVICES, in_axes=(None, 0), out_axes=out_axes, donate_argnums=donated)

    def replicate(self, state: Any) -> Any:
        """Places `state` on every device in the form that the compiled step returns, so that it compiles once."""
        if self.form == "jit":
            return jax.device_put(state, jax.local_devices()[0])
        mesh = Mesh(np.array(jax.local_devices()), (DEVICES,))
        return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))

    def shard(self, batch: Any) -> Any:
        """Cuts each leaf `[B, ...]` into `[devices, B / devices, ...]`; a no-op view under plain jit."""
        if self.form == "jit":
            return batch
        count = self.num_devices
        return jax.tree.map(lambda x: x.reshape(count, len(x) // count, *x.shape[1:]), batch)

    def gather(self, result: Any) -> Any:
        """Undoes `shard` on a sharded result: numpy leaves `[B, ...]`."""
        result = jax.device_get(result)
        if self.form == "jit":
            return result
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), result)

    def check_batch_size(self, key: str, batch_size: int) -> None:
        """Raises UserError unless the devices can share a batch evenly; `key` is the option to name."""
        if batch_size < self.num_devices or batch_size % self.num_devices:
            raise UserError(
                f"{key}={batch_size} does not divide over {self.num_devices} devices: choose a multiple of "
                f"{self.num_devices}, or --config.parallel=jit to use one device"
            )
