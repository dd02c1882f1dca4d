"""Write a report of runs: the command `hvq-report`, in hvq_jax/commands/report.py, from a checkout."""

import sys
from functools import partial

from hvq_jax import commands

if __name__ == "__main__":
    sys.exit(commands.run("report"))

main = partial(commands.main, "report")
