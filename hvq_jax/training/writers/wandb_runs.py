"""Weights & Biases (https://pypi.org/project/wandb).

Runs are sent to the server where the user is logged in, as by `wandb login` or WANDB_API_KEY. Otherwise, and with
WANDB_MODE=offline, they are written to `wandb` in the workdir, and `wandb sync` sends them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvq_jax.training.writers.tracker import Tracker


class WandB(Tracker):
    """A run of Weights & Biases; the x-axis of each stage's metrics is its step."""

    name = requires = "wandb"

    def _open(self, workdir: Path, *, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._stages: set[str] = set()
        asked = wandb.setup().settings.mode != "online"  # "online" is also the default
        logged_in = asked or wandb.run is not None or wandb.login(prompt=False, verify=False)
        self._run = wandb.init(
            project=project,
            name=workdir.name,
            id=self.run_id,
            resume="allow",
            dir=str(workdir),
            config=dict(config),
            allow_val_change=True,  # of options that may change when a run is resumed
            mode=None if logged_in else "offline",
            reinit="create_new",  # beside a run of the user's, and those of other threads
            settings=wandb.Settings(console="off"),  # it would take the output of other threads, too
        )

    def _write(self, stage: str, step: int, row: int, values: Mapping[str, float | np.ndarray]) -> None:
        import wandb

        if stage not in self._stages:
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        media = {name: wandb.Image(value) if isinstance(value, np.ndarray) else value for name, value in values.items()}
        # Its own step counts rows, as it must rise: the second stage starts at 0 again.
        self._run.log({**media, f"{stage}/step": step}, step=row, commit=True)

    def _close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
