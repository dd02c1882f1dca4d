"""Evaluation of models: classifier features, distances of samples, and plots."""

from hvq_jax.extras import require_train

require_train()
