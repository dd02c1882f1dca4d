"""Export a trained run to a folder, in one of several formats."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import hvq_jax
from hvq_jax.errors import UserError
from hvq_jax.export import cards, weights
from hvq_jax.export.jax_programs import DEFAULT_PLATFORMS, check_platforms, write_jax_programs
from hvq_jax.export.manifest import FORMAT, MANIFEST, Manifest, Program
from hvq_jax.export.onnx_programs import check_packages, write_onnx_programs
from hvq_jax.export.parts import find_parts
from hvq_jax.files import full_path, whole_folder, write_json, write_text
from hvq_jax.layout import CHECKPOINTS
from hvq_jax.priors.sampling import DEFAULT_OPTIONS, SamplingOptions
from hvq_jax.registry import choose
from hvq_jax.runs.outputs import check_new_folder
from hvq_jax.runs.summary import read_summary
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.runs.workdir import read_description


@dataclasses.dataclass(frozen=True)
class _Source:
    """A run that is exported, and how."""

    run: TrainedRun
    has_prior: bool
    platforms: Sequence[str]
    sampling: SamplingOptions

    @property
    def steps(self) -> dict[str, int]:
        """The training steps of the stages."""
        stages = {} if self.run.image_shape is None else {"autoencoder": self.run.autoencoder_step}
        return stages | ({"prior": self.run.steps["step"]} if self.has_prior else {})

    def manifest(self, kind: str, programs: dict[str, Program]) -> Manifest:
        """Return the manifest of programs of one kind."""
        return {
            "format": FORMAT,
            "kind": kind,
            "hvq_jax": hvq_jax.__version__,
            "run": self.run.workdir.name,
            "latent": self.run.options.latent.mode,
            "class_names": list(self.run.class_names),
            "steps": self.steps,
            "parameters_sha256": weights.fingerprint(weights.named_arrays(self.run, has_prior=self.has_prior)),
            "programs": programs,
        }


def _write_jax(folder: Path, source: _Source) -> None:
    parts = find_parts(source.run, source.sampling, has_prior=source.has_prior)
    programs, versions = write_jax_programs(folder, parts, source.platforms)
    manifest = source.manifest("jax", programs) | {"jax": versions}
    if "sampler" in programs:
        manifest["sampling"] = dataclasses.asdict(source.sampling)
    write_json(folder / MANIFEST, manifest)
    write_text(folder / "README.md", cards.jax_readme(manifest))


def _write_onnx(folder: Path, source: _Source) -> None:
    programs, note = write_onnx_programs(folder, source.run.model, source.run.variables)
    manifest = source.manifest("onnx", programs)
    write_json(folder / MANIFEST, manifest)
    write_text(folder / "README.md", cards.onnx_readme(manifest, note))


def _write_weights(folder: Path, source: _Source) -> None:
    arrays = weights.named_arrays(source.run, has_prior=source.has_prior)
    about = weights.metadata(source.run, source.steps, arrays)
    weights.write_weights(folder / weights.FILE, arrays, about)
    summary, data = read_summary(source.run.workdir), read_description(source.run.workdir)
    write_text(folder / "README.md", cards.weights_readme(source.run, about, summary, data))


FORMATS: dict[str, Callable[[Path, _Source], None]] = {
    "jax": _write_jax,
    "safetensors": _write_weights,
    "onnx": _write_onnx,
}


def export_run(
    run: TrainedRun | str | Path,
    folder: str | Path,
    format: str = "jax",
    *,
    platforms: Sequence[str] = DEFAULT_PLATFORMS,
    sampling: SamplingOptions = DEFAULT_OPTIONS,
) -> list[str]:
    """Export the best checkpoints of a run; return the names of the files written.

    Args:
        run: the run, or its workdir.
        folder: a new or empty folder; it is written whole or not at all.
        format: "jax", programs that any process runs with JAX alone; "safetensors", the weights with a model card; or
            "onnx", encoder and decoder as ONNX models.
        platforms: of the format "jax": names in `jax_programs.PLATFORMS`.
        sampling: of the format "jax": how its sampler draws.

    Raises:
        UserError: there is no such run, it cannot be exported in this format, the folder exists, or a package is
            missing.
    """
    write = choose("format", format, FORMATS)
    check_platforms(platforms)
    run = TrainedRun.load(run) if isinstance(run, str | Path) else run
    check_new_folder(str(folder), workdir=run.workdir)
    if format == "onnx":
        check_packages()
        _check_has_autoencoder(run)
    with whole_folder(full_path(folder)) as unfinished:
        write(unfinished, _Source(run, _has_prior(run), platforms, sampling))
        return sorted(path.name for path in unfinished.iterdir())


def _check_has_autoencoder(run: TrainedRun) -> None:
    if run.image_shape is None:
        raise UserError(
            f"{run.workdir} has a prior over your own latents and no autoencoder to convert: choose "
            "--format=safetensors for its weights, or --format=jax for a sampler of latents"
        )


def _has_prior(run: TrainedRun) -> bool:
    return (run.workdir / CHECKPOINTS / "prior").is_dir() or run.given_prior is not None
