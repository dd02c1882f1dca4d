"""What needs more than the core of the package: more dependencies are installed with `hvq_jax[train]`."""

import importlib.util

# The modules of the extra's packages, as in pyproject.toml.
TRAIN = (
    "absl",
    "array_record",
    "grain",
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
            'pip install "hvq_jax[train]"'
        )
