"""The commands: each is a module with a function `run(arguments)`; its help text is made from its docstring.

The command of the module `train` is `hvq-train` where the package is installed, and `python train.py` in a checkout.
The help texts are stored beside the modules, so that `--help` does not wait for JAX: after changing an option, run

    python -m hvq_jax.commands
"""

import gc
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

from hvq_jax.command import exit_status, start
from hvq_jax.devices import huge_pages
from hvq_jax.devices.accelerators import chooses_cpu

NAMES = ("compress", "convert", "evaluate", "explore", "export", "report", "sample", "train")
_IN_A_CHECKOUT, _INSTALLED = "python {}.py", "hvq-{}"  # how to type a command
_HELP = frozenset({"--help", "-help", "-h"})


def help_file(name: str) -> Path:
    """Return the file with the help text of the command `name`."""
    return Path(__file__).parent / "help" / f"{name}.txt"


def make_help(name: str) -> str:
    """Return the help text of the command `name` from its module: that of its parser, where it has one."""
    command = importlib.import_module(f"hvq_jax.commands.{name}")
    if hasattr(command, "parser"):
        return str(command.parser().format_help())
    return str(command.describe() if hasattr(command, "describe") else command.__doc__)


def main(name: str, arguments: Sequence[str]) -> int:
    """Run the command `name` with these arguments, or print its help text; return the exit status."""
    if _HELP & set(arguments):
        return exit_status(lambda: print(help_file(name).read_text(encoding="utf-8"), end=""))
    command = _imported(name)
    from hvq_jax.training.logging import set_quiet

    set_quiet()
    interrupted = getattr(command, "INTERRUPTED", "interrupted")
    return exit_status(partial(command.run, list(arguments)), interrupted=interrupted)


def _imported(name: str) -> ModuleType:
    """Return the module of the command `name`, imported without searching for garbage: it makes none and is slow."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(f"hvq_jax.commands.{name}")
    finally:
        gc.freeze()  # modules live as long as the process: no later search has to look at them
        if was_enabled:
            gc.enable()


def run(name: str, spelling: str = _IN_A_CHECKOUT) -> int:
    """Run the command `name` as this process, with its arguments; return the exit status."""
    start(spelling)  # before the slow imports
    from hvq_jax.extras import require_train

    try:
        require_train()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if _HELP & set(sys.argv[1:]):
        return main(name, sys.argv[1:])
    if chooses_cpu():
        huge_pages.start_again()  # before the slow imports
    from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options

    set_cpu_options()  # before anything uses a device
    keep_compiled_programs()
    return main(name, sys.argv[1:])


def __getattr__(name: str) -> Callable[[], int]:
    """Return, as `run_NAME`, the function that runs the command NAME: the entry point of `hvq-NAME`."""
    if name.startswith("run_"):
        return partial(run, name.removeprefix("run_"), _INSTALLED)
    raise AttributeError(f"module 'hvq_jax.commands' has no attribute {name!r}")
