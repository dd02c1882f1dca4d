"""Train a model: the command `hvq-train`, in hvq_jax/commands/train.py, from a checkout."""

import sys
from functools import partial

from hvq_jax import commands

if __name__ == "__main__":
    sys.exit(commands.run("train"))

main = partial(commands.main, "train")
