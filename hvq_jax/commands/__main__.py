"""Write the help texts of all commands.

python -m hvq_jax.commands
"""

from hvq_jax.commands import NAMES, help_file, make_help
from hvq_jax.files import write_text

if __name__ == "__main__":
    for name in NAMES:
        write_text(help_file(name), make_help(name))
