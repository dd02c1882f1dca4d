"""Checkpoints of the PyTorch reference."""

from hvq_jax.extras import require_train

require_train()
