"""Convert checkpoints of PyTorch: the command `hvq-convert`, in hvq_jax/commands/convert.py, from a checkout."""

import sys
from functools import partial

from hvq_jax import commands

if __name__ == "__main__":
    sys.exit(commands.run("convert"))

main = partial(commands.main, "convert")
