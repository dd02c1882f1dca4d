"""Whether loops in compiled programs are unrolled."""

import jax


def unrolls_loops() -> bool:
    """Return whether loops over convolutions are unrolled: XLA on CPU runs these ten times slower in a loop.

    See https://github.com/jax-ml/jax/issues/12868.
    """
    return jax.default_backend() == "cpu"
