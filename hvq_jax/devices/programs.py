"""The memory of compiled programs."""

from typing import Any


def program_bytes(compiled: Any) -> int | None:
    """Return the memory that XLA has planned for a compiled program on a device; None where a backend does not say.

    It is that of arguments, results and temporaries; arguments whose memory the results reuse count once.

    >>> import jax
    >>> program_bytes(jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((1024,), "float32")).compile())
    8192
    """
    plan = compiled.memory_analysis()
    if plan is None:
        return None
    results = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return int(plan.argument_size_in_bytes + results + plan.temp_size_in_bytes)
