"""Trackio (https://pypi.org/project/trackio).

Runs are written to a database in TRACKIO_DIR, by default in ~/.cache/huggingface/trackio, and shown by `trackio show`.
With TRACKIO_SPACE_ID or TRACKIO_SERVER_URL they are sent to a Space of Hugging Face or to a server.
"""

import contextvars
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvq_jax.training.writers.tracker import Tracker


class Trackio(Tracker):
    """A run of Trackio, called after the workdir and `run_id`, as Trackio knows runs by their names."""

    name = requires = "trackio"

    def _open(self, workdir: Path, *, project: str, config: Mapping[str, Any]) -> None:
        import trackio

        name = f"{workdir.name}-{self.run_id}"
        if not (os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")):
            self._known_run["last"] = _last_steps(project, name)
        # In a context of its own, where there is no run of the user's that it would end.
        self._run = contextvars.Context().run(
            trackio.init,
            project,
            name,
            config=dict(config),
            resume="allow",
            embed=False,  # in Colab, the dashboard is opened to the network
        )

    def _write(self, stage: str, step: int, row: int, values: Mapping[str, float | np.ndarray]) -> None:
        import trackio

        del stage, row
        media = {
            name: trackio.Image(_rgb(value)) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }
        self._run.log(media, step=step)

    def _close(self, *, failed: bool) -> None:
        del failed
        self._run.finish()


def _last_steps(project: str, name: str) -> dict[str, int]:
    """Return the last step of each kind that is in the database: it is written half a second later, or never."""
    from trackio.sqlite_storage import SQLiteStorage

    last: dict[str, int] = {}
    for row in SQLiteStorage.get_logs(project, name):
        for key in row:
            if key.count("/") > 1:
                kind = key.rsplit("/", 1)[0]
                last[kind] = max(row["step"], last.get(kind, -1))
    return last


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
