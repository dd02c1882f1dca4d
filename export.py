"""Export a trained run: the command `hvq-export`, in hvq_jax/commands/export.py, from a checkout."""

import sys
from functools import partial

from hvq_jax import commands

if __name__ == "__main__":
    sys.exit(commands.run("export"))

main = partial(commands.main, "export")
