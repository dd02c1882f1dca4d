"""Training: the loop of both stages, checkpoints and logs."""

from hvq_jax.extras import require_train

require_train()
