"""A run of the second stage alone, on latents that the user provides."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from hvq_jax.files import printable
from hvq_jax.runs.latent_data import LatentData
from hvq_jax.runs.latent_files import write_tables
from hvq_jax.runs.own_latents import OwnLatents
from hvq_jax.runs.run import Run
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.prior_stage import PriorStage


@dataclasses.dataclass(frozen=True)
class LatentRun(Run):
    """A run of the second stage alone, on user-provided latents (`prior.latents`)."""

    has_images: ClassVar[bool] = False

    dataset: OwnLatents

    @property
    def data_name(self) -> str:
        """The name of the file of latents."""
        return str(self.options.prior.latents)

    @property
    def data_title(self) -> str:
        """The name of the file of latents, without its folder."""
        return printable(Path(self.data_name).name)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """The sides (h, w) of the latents."""
        return self.dataset.latent_shape

    def work(self) -> None:
        """Train the prior."""
        self.train_prior(TrainedRun.load(self.workdir))

    def prior_stage(self, trained: TrainedRun) -> tuple[PriorStage, LatentData]:
        """Return the second stage and its data."""
        latents = self.dataset.data
        write_tables(self.workdir, latents.tables, 0)
        return trained.prior_stage(latents.tables), latents
