"""Runs: their options and folders, their stages, and what is done with a trained one."""

from hvq_jax.extras import require_train

require_train()
