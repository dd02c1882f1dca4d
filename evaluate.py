"""Evaluate a trained run: the command `hvq-evaluate`, in hvq_jax/commands/evaluate.py, from a checkout."""

import sys
from functools import partial

from hvq_jax import commands

if __name__ == "__main__":
    sys.exit(commands.run("evaluate"))

main = partial(commands.main, "evaluate")
