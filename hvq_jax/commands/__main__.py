"""Write the help texts of all commands.

python -m hvq_jax.commands
"""

import importlib

from hvq_jax.commands import NAMES, help_file
from hvq_jax.files import write_text

if __name__ == "__main__":
    for name in NAMES:
        write_text(help_file(name), importlib.import_module(f"hvq_jax.commands.{name}").describe())
