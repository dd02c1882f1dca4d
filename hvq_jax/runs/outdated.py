"""A prior whose autoencoder has been trained further: it is set aside with its tables, to be trained again."""

from pathlib import Path

from hvq_jax.devices.cluster import agreed, is_first, wait_for_all, warn
from hvq_jax.layout import CHECKPOINTS, LATENTS, TABLES
from hvq_jax.runs.latent_files import step_of
from hvq_jax.training.checkpoint import free_name
from hvq_jax.training.logging import drop_records
from hvq_jax.training.prior_stage import PriorStage


def set_outdated_aside(workdir: Path, autoencoder_step: int) -> bool:
    """Make room for another prior where the best autoencoder, of `autoencoder_step`, is not that of the prior any more.

    Return whether that was so.

    The prior's checkpoints are renamed, not deleted; its latents and tables, which the next one makes again, are
    removed last, so that a crash in between is noticed.
    """
    with agreed():
        made_by = {step for name in (LATENTS, TABLES) if (step := step_of(workdir / name)) is not None}
    if made_by <= {autoencoder_step}:
        return False
    with agreed():
        if is_first():
            _set_aside(workdir, min(made_by - {autoencoder_step}))
    wait_for_all("the outdated prior is set aside")
    warn(
        f"prior: the best autoencoder is now that of step {autoencoder_step}: latents are encoded again, and the prior "
        "is trained again on these"
    )
    return True


def _set_aside(workdir: Path, step: int) -> None:
    folder = workdir / CHECKPOINTS / PriorStage.name
    if folder.exists():
        target = free_name(folder.with_name(f"{PriorStage.name}-of-autoencoder-{step}"))
        folder.rename(target)
        warn(f"prior: that of the autoencoder of step {step} is kept in {target}, which you may delete")
    drop_records(workdir, PriorStage.name, after_step=0)
    for name in (TABLES, LATENTS):
        (workdir / name).unlink(missing_ok=True)
