"""One MLIR context for all programs that a process lowers.

JAX makes a context for each program, which takes milliseconds: as long as tracing and lowering most programs of tests.
"""

import functools

from jax._src.interpreters import mlir
from jaxlib.mlir import ir

_make = mlir.make_ir_context
_shared = functools.cache(_make)


def _make_or_share():
    """Return the shared context, or a new one for a program that is lowered while another one is being lowered.

    Within the context of the outer program, what is built would be inserted into that program.
    """
    return _shared() if ir.Context.current is None else _make()


def share_context():
    """Let all programs be lowered in one context from now on."""
    mlir.make_ir_context = _make_or_share
