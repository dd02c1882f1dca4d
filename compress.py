"""Compress images with a trained run: the command `hvq-compress`, in hvq_jax/commands/compress.py, from a checkout."""

import sys
from functools import partial

from hvq_jax import commands

if __name__ == "__main__":
    sys.exit(commands.run("compress"))

main = partial(commands.main, "compress")
