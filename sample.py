"""Draw images from a trained run: the command `hvq-sample`, in hvq_jax/commands/sample.py, from a checkout."""

import sys
from functools import partial

from hvq_jax import commands

if __name__ == "__main__":
    sys.exit(commands.run("sample"))

main = partial(commands.main, "sample")
