"""The lines at the start of a run: devices, data, model, training, memory, and where things go."""

import math
import textwrap

import jax

from hvq_jax.files import as_typed
from hvq_jax.latents import PROJECTION, Z_E, find_latent
from hvq_jax.progress import num_bytes_in_words
from hvq_jax.runs.memory import device_bytes, state_bytes, trace
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.run import Run
from hvq_jax.training.loop import num_training_steps

_WIDEST_NOTE = 110  # characters of the description of a data set
_CONTINUED = ("note", "size")  # lines that go on with what the one before is about


def overview(run: Run) -> list[str]:
    """Return at most eight lines on a run that is about to start."""
    options = run.options
    # Tracing takes a fraction of a second: not for a finished run.
    sizes = {name: _sizes(run, name) for name in options.stages if run.steps_left(run.blank_stage(name))}
    lines = {
        "device": _devices(run),
        "data": f"{run.data_title}: {run.data_counts}",
        "note": textwrap.shorten(run.data_description, _WIDEST_NOTE, placeholder=" …"),
        "model": model_in_words(options, run.latent_shape),
        "size": ", ".join(f"{name} of {count:,} parameters" for name, (count, _) in sizes.items()),
        "training": ", ".join(_length(run, name) for name in options.stages),
        "memory": _memory(max((num_bytes for _, num_bytes in sizes.values()), default=0)),
        "output": as_typed(run.workdir),
    }
    return [f"{'' if name in _CONTINUED else name:10}{text}" for name, text in lines.items() if text]


def _devices(run: Run) -> str:
    processes = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{run.context.parallel.num_devices} × {jax.devices()[0].device_kind}{processes}, JAX {jax.__version__}"


def _memory(needed: int) -> str:
    if not needed:
        return ""
    total = num_bytes_in_words(device_bytes())
    return f"at least {num_bytes_in_words(needed)} of {total} per device, for parameters, gradients, Adam and a batch"


def model_in_words(options: RunOptions, latent_shape: tuple[int, int]) -> str:
    """Return the latent in words, with the most bits that an image can take where there is such a number.

    >>> from hvq_jax.quantizers import LatentOptions
    >>> model_in_words(RunOptions(latent=LatentOptions(mode="projected", num_codes=256)), (7, 7))
    'projected latent, 7×7 positions of 256 codes and 16 gains: at most 588 bits per image'
    """
    row, height, width = find_latent(options.latent.mode), *latent_shape
    per_position, codes = math.prod(options.quantizer.index_shape), options.quantizer.num_codes
    bits = per_position * math.log2(codes)
    parts = [f"{f'{per_position} × ' if per_position > 1 else ''}{codes:,} codes"]
    if row.uses(PROJECTION) and options.prior.num_bins > 1:
        groups = options.latent.projection_groups
        bits += groups * math.log2(options.prior.num_bins)
        parts.append(f"{f'{groups} × ' if groups > 1 else ''}{options.prior.num_bins} gains")
    if row.uses(Z_E):
        parts.append(f"residuals in steps of {options.prior.residual_step:g}")
    most = f"at most {height * width * bits:,.0f} bits per {'latent' if options.prior.latents else 'image'}"
    return (
        f"{options.latent.mode} latent, {height}×{width} positions of {' and '.join(parts)}: "
        f"{most}{', residuals not counted' if row.uses(Z_E) else ''}"
    )


def _sizes(run: Run, name: str) -> tuple[int, int]:
    """Return the number of parameters of a stage, and the bytes of its training state and a batch on a device."""
    stage, options = run.blank_stage(name), getattr(run.options, name)
    params, _ = trace(stage)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    batch = options.batch_size // run.context.parallel.num_devices * stage.item.size * stage.item.dtype.itemsize
    return count, state_bytes(stage, options) + batch


def _length(run: Run, name: str) -> str:
    options, stage = getattr(run.options, name), run.blank_stage(name)
    return f"{name} {num_training_steps(options, run.train_split):,} steps of {options.batch_size} {stage.items}"
