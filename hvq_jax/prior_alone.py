"""A run that has a prior only, over latents of the user's own (`prior.latents`)."""

import dataclasses

from ml_collections import ConfigDict

from hvq_jax.inference import TrainedRun
from hvq_jax.run import Run
from hvq_jax.training import config as configuration
from hvq_jax.training.latent_data import LatentData, write_tables
from hvq_jax.training.loop import Stage
from hvq_jax.training.own_latents import OwnLatents, own_latents
from hvq_jax.training.prior_stage import prior_stage


@dataclasses.dataclass(frozen=True)
class PriorAlone(Run):
    """The second stage, without a first."""

    dataset: OwnLatents

    def prior_stage(self) -> tuple[Stage, LatentData, int]:
        """As of every run."""
        run, latents = TrainedRun.load(self.workdir), self.dataset.data
        write_tables(self.workdir, latents.tables, 0)
        options = {"label_dropout": self.config.prior.label_dropout}
        stage = prior_stage(run.prior, self.dataset.latent_shape, 0, latents.tables.present, **options)
        return stage, latents, 0


def read_latents(config: ConfigDict) -> OwnLatents:
    """The data set that `config` names; UserError."""
    dataset = own_latents(
        config.prior.latents,
        configuration.latent_options_of(config),
        configuration.continuous_options_of(config),
        validation_size=config.data.validation_size,
        test_size=config.data.test_size,
    )
    configuration.check_labels(config, has_labels=bool(dataset.class_names))
    return dataset
