"""Four simulated devices, and the XLA options that the entry points set; both before JAX first looks for devices."""

import os

from hvq_jax.training.xla import set_cpu_options

set_cpu_options()
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import hypothesis  # noqa: E402 - after the environment is set

# Compiling takes as long as it takes; and the same examples every time, so that a failure is the code's.
hypothesis.settings.register_profile("hvq_jax", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("hvq_jax")
