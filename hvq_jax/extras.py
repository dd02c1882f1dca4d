"""What needs more than the core of the package, and how to install it."""

import importlib.util
import os
from pathlib import Path

_ROOT = Path(__file__).parents[1]  # a clone of the project, or where packages are installed

# The modules of the extra's packages, as in pyproject.toml.
TRAIN = (
    "absl",
    "array_record",
    "importlib_resources",
    "matplotlib",
    "ml_collections",
    "orbax",
    "PIL",
    "pyarrow",
    "tensorboardX",
    "tensorflow_datasets",
    "tqdm",
)


def require_train() -> None:
    """Raise ImportError, with a message of one line, if a package of the extra is not installed."""
    missing = [name for name in TRAIN if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{', '.join(missing)} cannot be imported, needed to train models and to open trained ones: "
            f"{install_command('train')}"
        )


def install_command(extra: str) -> str:
    """Return the command that installs an extra: of the clone that this package is in, else of what is installed.

    No package index needs to know the clone.
    """
    if not (_ROOT / "pyproject.toml").exists():
        return f'pip install "hvq_jax[{extra}]"'
    place = "." if os.path.samefile(os.curdir, _ROOT) else _ROOT
    return f'pip install "{place}[{extra}]"'
