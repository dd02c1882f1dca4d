"""Arrays of another training that a stage starts from, in place of random ones."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class GivenArrays:
    """The arrays by their paths in the pair of params and model state; `has_codes`: codes are among them.

    >>> given = GivenArrays({"[0]['a']": np.ones(1)}, has_codes=False)
    >>> given.fill({"a": np.zeros(1), "b": np.zeros(1)}, None)
    ({'a': array([1.]), 'b': array([0.])}, None)
    """

    arrays: Mapping[str, np.ndarray]
    has_codes: bool

    def fill(self, params: Any, model_state: Any) -> tuple[Any, Any]:
        """Return `params` and `model_state` with these arrays in their places."""

        def choose(path: Any, leaf: Any) -> Any:
            return self.arrays.get(jax.tree_util.keystr(path), leaf)

        filled: tuple[Any, Any] = jax.tree_util.tree_map_with_path(choose, (params, model_state))
        return filled
