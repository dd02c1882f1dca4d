"""Writers: TensorBoard and trackers of experiments, chosen by `logging.writers`."""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hvq_jax.errors import ArgumentError
from hvq_jax.extras import install_command
from hvq_jax.options import Options, option
from hvq_jax.registry import choices_in_words
from hvq_jax.training.writers.tensorboard import TensorBoard
from hvq_jax.training.writers.trackio_runs import Trackio
from hvq_jax.training.writers.wandb_runs import WandB
from hvq_jax.training.writers.writer import Writer as Writer

WRITERS: dict[str, type[Writer]] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": WandB}

_NONE = "none"


@dataclasses.dataclass(frozen=True)
class LoggingOptions(Options):
    """Where a run is logged, besides `metrics.jsonl`."""

    writers: str = option(
        "tensorboard",
        f"{', '.join(WRITERS)}, or several of them, separated by commas; none: metrics.jsonl only",
        changeable=True,
    )
    project: str = option("hvq_jax", "the run's project in trackers", changeable=True)

    def __post_init__(self) -> None:
        """Check that each writer is known."""
        super().__post_init__()
        for name in self.names:
            if name not in WRITERS:
                raise ArgumentError(
                    f"writers={self.writers}",
                    f"there is no {name}: {choices_in_words([*WRITERS, _NONE])}, or several, separated by commas",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the writers, each once."""
        return () if self.writers == _NONE else tuple(dict.fromkeys(self.writers.split(",")))


def check_installed(options: LoggingOptions) -> None:
    """Raise ArgumentError if the module of a writer is not installed."""
    for name in options.names:
        module = WRITERS[name].requires
        if module is not None and importlib.util.find_spec(module) is None:
            raise ArgumentError(
                f"logging.writers={options.writers}",
                f"{module} is not installed: {install_command(name)}, or leave it out",
            )


@contextlib.contextmanager
def opened_writers(options: LoggingOptions, workdir: Path, config: Mapping[str, Any]) -> Iterator[tuple[Writer, ...]]:
    """Yield the writers for the run in `workdir`, and close them after the block; raise UserError if one fails."""
    writers: list[Writer] = []
    failed = True
    try:
        for name in options.names:
            writers.append(WRITERS[name](workdir, project=options.project, config=config))
        yield tuple(writers)
        failed = False
    finally:
        for writer in writers:
            writer.close(failed=failed)
