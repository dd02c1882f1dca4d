"""Open a page for a trained run: the command `hvq-explore`, in hvq_jax/commands/explore.py."""

import sys

from hvq_jax import commands

if __name__ == "__main__":
    sys.exit(commands.run("explore"))
