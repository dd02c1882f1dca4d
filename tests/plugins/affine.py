"""A learning rule from outside the package: codes that share a learned scale and shift.

--config.codebook.learning=tests.plugins.affine:Affine
"""

import dataclasses

import jax.numpy as jnp

from hvq_jax.quantizers.learning import LearningRule


@dataclasses.dataclass(frozen=True)
class Affine(LearningRule):
    """Codes scale * c + shift, all learned by gradient (Huh et al., 2023, arXiv:2305.08842).

    Every gradient moves the scale and the shift `[D]`, and with them the codes that are not in use.
    """

    def init(self, codes, *, known):
        """Return parameters that give `codes` `[K, D]`, and no state."""
        dim = codes.shape[-1]
        return {"codes": codes, "scale": jnp.ones(dim), "shift": jnp.zeros(dim)}, None

    def codes(self, params, state):
        """Return the codes `[K, D]`."""
        return params["scale"] * params["codes"] + params["shift"]
