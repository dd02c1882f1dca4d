"""Image data sets and their batches, as uint8 arrays on the host."""

from hvq_jax.extras import require_train

require_train()
