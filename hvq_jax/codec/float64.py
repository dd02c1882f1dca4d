"""Evaluation of a float32 function in float64, whatever dtypes it names.

A network's results differ between machines, batch sizes and versions of XLA by rounding: by about 1e-6 in float32, and
1e-14 in float64. Modules name their dtypes; so the function is traced as it is, and what was traced is evaluated with
every float in 64 bits.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from hvq_jax.errors import UserError

_NESTED = ("jaxpr", "call_jaxpr")  # the parameters of primitives that call a function once


def in_float64(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, of pytrees of arrays, compiled and with every float in 64 bits, in arguments and results too.

    Raises, when called, UserError for a function with loops or branches.
    """

    @functools.cache
    def traced(structure: Any, forms: tuple[tuple[tuple[int, ...], Any], ...]) -> tuple[Callable[..., Any], Any]:
        shapes = [jax.ShapeDtypeStruct(shape, _narrow(dtype)) for shape, dtype in forms]
        with jax.enable_x64(False):
            closed, result = jax.make_jaxpr(function, return_shape=True)(*jax.tree.unflatten(structure, shapes))
        evaluated = jax.jit(lambda *leaves: _evaluate(closed.jaxpr, closed.consts, leaves))
        return evaluated, jax.tree.structure(result)

    def call(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        evaluated, result = traced(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        with jax.enable_x64(True):
            return jax.tree.unflatten(result, evaluated(*leaves))

    return call


def widened(tree: Any) -> Any:
    """Return a pytree of arrays with every float in 64 bits, as `in_float64` takes them with the least work."""
    with jax.enable_x64(True):
        return jax.tree.map(_widened, tree)


def _evaluate(jaxpr: Any, consts: Any, arguments: Any) -> list[Any]:
    """Return the results of what was traced."""
    variables = (*jaxpr.constvars, *jaxpr.invars)
    values: dict[Any, Any] = dict(zip(variables, map(_widened, (*consts, *arguments)), strict=True))

    def value(variable: Any) -> Any:
        return _widened(variable.val) if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        results = _bind(equation, [value(variable) for variable in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
    return [value(variable) for variable in jaxpr.outvars]


def _bind(equation: Any, arguments: list[Any]) -> list[Any]:
    if equation.params.get("branches_platforms"):  # the same function in several forms, the last for any platform
        form = equation.params["branches"][-1]
        return _evaluate(form.jaxpr, form.consts, arguments[1:])
    nested = [equation.params[name] for name in _NESTED if name in equation.params]
    if nested and equation.primitive.name not in ("scan", "while", "cond"):
        return _evaluate(getattr(nested[0], "jaxpr", nested[0]), getattr(nested[0], "consts", ()), arguments)
    if any(isinstance(leaf, core.Jaxpr | core.ClosedJaxpr) for leaf in jax.tree.leaves(equation.params)):
        raise UserError(f"portable streams need a prior without loops or branches; it uses {equation.primitive.name}")
    params = {name: _wide_dtype(param) for name, param in equation.params.items()}
    results = equation.primitive.bind(*arguments, **params)
    return results if equation.primitive.multiple_results else [results]


def _is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def _widened(array: Any) -> Any:
    return jnp.asarray(array, np.float64) if _is_float(jnp.result_type(array)) else array


def _wide_dtype(param: Any) -> Any:
    """Return float64 where a primitive's parameter names another float, else the parameter."""
    named = isinstance(param, np.dtype) or (isinstance(param, type) and issubclass(param, np.generic))
    return np.dtype(np.float64) if named and _is_float(param) else param


def _narrow(dtype: Any) -> Any:
    return np.dtype(np.float32) if _is_float(dtype) else dtype
