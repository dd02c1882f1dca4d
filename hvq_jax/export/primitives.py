"""A program with everything inlined that converters to other formats do not know.

Conversion needs neither gradients nor a choice of platform, and no hints to XLA: what is left are plain operations.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint")
_MOST_STEPS = 64  # of a loop that is unrolled

Arrays = Sequence[Any]


def with_plain_operations(program: ClosedJaxpr) -> Callable[..., list[Any]]:
    """Return a function like `program`, of a list of arrays, whose operations are plain when it is traced.

    Functions within it are inlined, with or without custom gradients; of a choice by platform, that for CPU is taken;
    barriers are dropped; short loops are unrolled; what does not depend on the arguments is computed; and stacks,
    padding with zeros and choices between booleans are written in other operations.
    """
    return lambda *arguments: _evaluate(program, arguments)


def _evaluate(program: ClosedJaxpr, arguments: Arrays) -> list[Any]:
    jaxpr = program.jaxpr
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        found = _operation(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _operation(equation: Any, inputs: list[Any]) -> Arrays:
    """Return the results of one equation."""
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        return _evaluate(_closed(params.get("jaxpr") or params["call_jaxpr"]), inputs)
    if name == "platform_index":
        return [_index_of_cpu(params["platforms"])]
    if name == "cond" and _is_known(inputs[0]):
        return _evaluate(params["branches"][int(inputs[0])], inputs[1:])
    if name == "scan" and params["length"] <= _MOST_STEPS:
        return _unrolled(params, inputs)
    if name == "optimization_barrier":
        return inputs
    if name == "pad" and not _is_known(inputs[0]) and _pads_with_zeros(params, inputs[1]):
        return [_padded(inputs[0], params["padding_config"])]
    if name == "stack":
        return [_stacked(inputs, params["axis"])]
    if name == "select_n" and len(inputs) == 3 and inputs[1].dtype == bool:
        which, otherwise, chosen = inputs
        return [(which & chosen) | (~which & otherwise)]
    if all(map(_is_known, inputs)) and all(
        isinstance(size, int) for out in equation.outvars for size in out.aval.shape
    ):
        with jax.ensure_compile_time_eval():
            return _bound(equation, inputs)
    return _bound(equation, inputs)


def _bound(equation: Any, inputs: list[Any]) -> Arrays:
    found = equation.primitive.bind(*inputs, **equation.params)
    return found if equation.primitive.multiple_results else [found]


def _closed(program: Any) -> ClosedJaxpr:
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())


def _is_known(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


def _index_of_cpu(platforms: Sequence[Any]) -> np.int32:
    """Return the index of the branch for CPU, or else of the default, whose platforms are None."""
    of_cpu = [i for i, names in enumerate(platforms) if names is not None and "cpu" in names]
    return np.int32(of_cpu[0] if of_cpu else platforms.index(None))


def _unrolled(params: Any, inputs: list[Any]) -> list[Any]:
    """Return the results of a scan: the last carry, then the outputs of each step, stacked."""
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts, carry, per_step = (
        inputs[:num_consts],
        inputs[num_consts : num_consts + num_carry],
        inputs[num_consts + num_carry :],
    )
    order = range(params["length"])
    outputs: dict[int, list[Any]] = {}
    for step in reversed(order) if params["reverse"] else order:
        found = _evaluate(params["jaxpr"], [*consts, *carry, *(array[step] for array in per_step)])
        carry, outputs[step] = found[:num_carry], found[num_carry:]
    return [*carry, *(_stacked(parts, 0) for parts in zip(*(outputs[step] for step in order), strict=True))]


def _stacked(arrays: Arrays, axis: int) -> jax.Array:
    return jnp.concatenate([jnp.expand_dims(array, axis) for array in arrays], axis)


def _pads_with_zeros(params: Any, value: Any) -> bool:
    widths = params["padding_config"]
    return (
        _is_known(value)
        and not np.asarray(value).any()
        and all(low >= 0 <= high and not inner for low, high, inner in widths)
    )


def _padded(x: Any, widths: Sequence[tuple[int, int, int]]) -> jax.Array:
    for axis, (low, high, _) in enumerate(widths):
        blocks = [jnp.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype) for size in (low, high)]
        around = [blocks[0]] * bool(low) + [x] + [blocks[1]] * bool(high)
        x = jnp.concatenate(around, axis) if len(around) > 1 else x
    return x
