"""The files of the second stage, `latents.npz` and `tables.npz`: their forms, and their reading.

`latents.npz` holds the latents before rounding, so that other bins or steps need no new encoding. For each
split, `train_indices` `[N, h, w]` int32, `[N, h, w, L]` for L codes per position, `train_labels` `[N]` int32 and, where
the latent has them, `train_lengths` `[N, h, w, g]` and `train_residuals` `[n, D]` float32, one row per position whose
code is transmitted with a residual, in raster order, and `train_names` `[N]`, the paths of the images below their
folder, or their numbers as stored; also `frequent` `[K]` bool, the frozen choice of frequent codes.

`tables.npz` holds the `Tables` of the tokens. Both say as `checkpoint_step` which autoencoder they were made with.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hvq_jax.autoencoder import Autoencoder
from hvq_jax.data.held_out import SPLITS
from hvq_jax.devices.cluster import is_first
from hvq_jax.errors import UserError
from hvq_jax.files import read_arrays, write_arrays
from hvq_jax.latents import PROJECTION, Z_E, Latent, find_latent
from hvq_jax.layout import CHECKPOINTS, LATENTS, TABLES
from hvq_jax.priors.options import TokenOptions
from hvq_jax.priors.tokens import Tables
from hvq_jax.quantizers import LatentOptions
from hvq_jax.schema import Array, check_arrays

_STEP = {"checkpoint_step": Array("integers", (), low=0)}


def latent_schema(row: Latent, num_codes: int, num_classes: int, index_shape: tuple[int, ...] = ()) -> dict[str, Array]:
    """Return the form of each array of a `latents.npz` of the latent `row`; K, g and D are sizes to be given."""
    schema = {"frequent": Array("bools", ("K",))}
    for split in SPLITS:
        grid = (f"N_{split}", "h", "w")
        schema[f"{split}_indices"] = Array("integers", (*grid, *index_shape), low=0, high=num_codes - 1)
        schema[f"{split}_labels"] = Array("integers", grid[:1], low=0, high=num_classes - 1)
        if row.uses(PROJECTION):
            schema[f"{split}_lengths"] = Array("floats", (*grid, "g"))
        if row.uses(Z_E):
            schema[f"{split}_residuals"] = Array("floats", (f"n_{split}", "D"), may_be_empty=True)
    return schema


def latent_sizes(options: LatentOptions, num_codes: int) -> dict[str, int]:
    """Return the sizes of the axes that `latent_schema` names and that the options say."""
    return {"K": num_codes, "g": options.projection_groups, "D": options.dim}


def check_residual_rows(arrays: Mapping[str, np.ndarray], row: Latent) -> None:
    """Raise ValueError unless residuals `[n, D]` are those of the n positions whose code has one."""
    has_residual = np.asarray(row.codes_with(Z_E, arrays["frequent"]))
    for split in SPLITS:
        residuals = arrays.get(f"{split}_residuals")
        if residuals is None or residuals.ndim != 2:
            continue
        count = np.count_nonzero(has_residual[arrays[f"{split}_indices"]])
        if count != len(residuals):
            raise ValueError(
                f"{split}_residuals has {len(residuals)} rows, but {count} positions of that split have a residual"
            )


def write_latents(
    workdir: Path,
    arrays: Mapping[str, np.ndarray],
    checkpoint_step: int,
    model: Autoencoder,
    num_classes: int,
    sizes: Mapping[str, int],
) -> None:
    """Store the latents that `model` encoded at `checkpoint_step`, on the first process.

    Raises UserError, on all, for arrays that `read_latents` would refuse; its other arguments are those of that.
    """
    try:
        check_arrays(arrays, _model_schema(model, num_classes), {**_sizes(model), **sizes})
    except ValueError as error:
        raise UserError(f"the autoencoder's latents cannot be used, has its training diverged? ({error})") from None
    if is_first():
        write_arrays(workdir / LATENTS, {"checkpoint_step": np.array(checkpoint_step), **arrays})


def read_latents(
    workdir: Path, model: Autoencoder, num_classes: int, sizes: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of the workdir's `latents.npz`, made with `model`.

    Args:
        workdir: the run's folder.
        model: the run's autoencoder.
        num_classes: number of classes of the data set.
        sizes: the number of latents of each split, "N_train" and so on, if it is known.

    Raises:
        UserError: the file is missing or damaged, or an array is not of this model and these sizes.
    """
    return read_arrays(
        workdir / LATENTS,
        _model_schema(model, num_classes),
        sizes=_sizes(model) | dict(sizes or {}),
        check=partial(check_residual_rows, row=model.row),
    )


def read_codes_of_split(
    workdir: Path, model: Autoencoder, num_classes: int, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes `[N, h, w]` or `[N, h, w, L]` and labels `[N]` of a split; raise UserError as `read_latents`."""
    names = f"{split}_indices", f"{split}_labels"
    schema = {name: form for name, form in _model_schema(model, num_classes).items() if name in names}
    arrays = read_arrays(workdir / LATENTS, schema, sizes=_sizes(model))
    return arrays[names[0]], arrays[names[1]]


def _model_schema(model: Autoencoder, num_classes: int) -> dict[str, Array]:
    return latent_schema(model.row, model.num_codes, num_classes, model.index_shape)


def _sizes(model: Autoencoder) -> dict[str, int]:
    height, width = model.latent_shape
    return {**latent_sizes(model.latent_options, model.num_codes), "h": height, "w": width}


def _table_schema(row: Latent, options: TokenOptions) -> dict[str, Array]:
    """Return the form of each array of a `tables.npz`; K, g·K and G are sizes to be given."""
    step = options.residual_step if row.uses(Z_E) else 0.0
    schema = {
        **_STEP,
        "has_length": Array("bools", ("K",)),
        "has_residual": Array("bools", ("K",)),
        "step": Array("floats", (), low=step, high=step),
    }
    if row.uses(PROJECTION):
        schema["centroids"] = Array("floats", ("g·K" if options.bins_per_code else 1, "G"))
    return schema


def write_tables(workdir: Path, tables: Tables, checkpoint_step: int) -> None:
    """Store the tables with the prior, on the first process; the step is the autoencoder's, or 0 without one."""
    if is_first():  # the shape of indices follows from the run's options
        arrays = {name: value for name, value in vars(tables).items() if value is not None and name != "index_shape"}
        write_arrays(workdir / TABLES, {"checkpoint_step": np.array(checkpoint_step), **arrays})


def read_tables(
    workdir: Path,
    latent_options: LatentOptions,
    options: TokenOptions,
    num_codes: int,
    index_shape: tuple[int, ...] = (),
) -> Tables:
    """Return the tables of the workdir's prior.

    Args:
        workdir: the run's folder.
        latent_options: the latent that the tables are of.
        options: how its continuous parts are rounded.
        num_codes: K.
        index_shape: the shape of a position's codes.

    Raises:
        UserError: the tables are missing or damaged, or are not of these options.
    """
    row, sizes = find_latent(latent_options.mode), latent_sizes(latent_options, num_codes)
    arrays = read_arrays(
        workdir / TABLES,
        _table_schema(row, options),
        sizes={**sizes, "g·K": sizes["g"] * num_codes, "G": options.num_bins},
        check=partial(_check_masks, row=row),
    )
    centroids = arrays.get("centroids")
    return Tables(
        jnp.asarray(arrays["has_length"]),
        jnp.asarray(arrays["has_residual"]),
        None if centroids is None else jnp.asarray(centroids, jnp.float32),
        float(arrays["step"]),
        index_shape,
    )


def _check_masks(arrays: Mapping[str, np.ndarray], row: Latent) -> None:
    """Raise ValueError unless each code has the continuous parts of a frequent or of a rare code."""
    found = np.stack([arrays["has_length"], arrays["has_residual"]], axis=-1)
    allowed = np.array([[seen == PROJECTION, seen == Z_E] for seen in (row.frequent, row.rare)])
    if not (found[:, None] == allowed).all(-1).any(-1).all():
        raise ValueError("has_length and has_residual are not those of the run's latent")


def check_latents(workdir: Path, checkpoint_step: int, remedy: str = "") -> None:
    """Raise UserError if the workdir's latents or its prior belong to the autoencoder of another step.

    `remedy` says what to do; by default, what to delete.
    """
    made = f"{workdir / LATENTS}, {workdir / TABLES} and {workdir / CHECKPOINTS / 'prior'}"
    advice = f"delete {made} and train the prior again"
    for path in (workdir / LATENTS, workdir / TABLES):
        made_by = step_of(path)
        if made_by not in (None, checkpoint_step):
            raise UserError(
                f"{path} and the prior belong to the autoencoder of step {made_by}, but the best is now that of step "
                f"{checkpoint_step}: {remedy or advice}"
            )


def step_of(path: Path) -> int | None:
    """Return the step of the autoencoder that latents or tables were made with, None if there is no such file."""
    return int(read_arrays(path, _STEP)["checkpoint_step"]) if path.exists() else None
