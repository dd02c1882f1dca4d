"""A report of one or several runs: a single HTML file with all figures, to be read without the code and the network."""

from hvq_jax.extras import require_train

require_train()
