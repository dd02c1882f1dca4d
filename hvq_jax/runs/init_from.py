"""Starting a run from the weights of another: what fits is taken, and what does not is listed."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.options import field_names
from hvq_jax.priors.options import PriorOptions
from hvq_jax.runs.options import PARTS, RunOptions, to_dict
from hvq_jax.runs.stored import StoredRun
from hvq_jax.runs.workdir import flatten
from hvq_jax.training.given_arrays import GivenArrays
from hvq_jax.training.stage import Stage

_MOST_LISTED = 4  # layers in a line


@dataclasses.dataclass(frozen=True)
class Start:
    """What the stages of a run start from, by stage, and the lines that say what was taken and what was not."""

    given: Mapping[str, GivenArrays]
    lines: tuple[str, ...]


def start_from(options: RunOptions, stages: Sequence[Stage], class_names: tuple[str, ...]) -> Start:
    """Read the weights of the run `options.init_from.run` for those `stages` of another run that start anew.

    An array fits where the same layer has arrays of the same names, shapes and dtypes. Of the quantizer all is taken or
    nothing, since codes, their averages and their frequencies belong together.

    Args:
        options: of the run that starts.
        stages: of the run that starts.
        class_names: of its data set.

    Raises:
        ArgumentError: there is no such run, it is damaged, it lacks a part that was asked for, nothing of it fits, or a
            frozen part is not taken as a whole.
    """
    name, chosen = f"init_from.run={options.init_from.run}", options.init_from.parts
    try:
        source = StoredRun.load(str(options.init_from.run))
        arrays = {stage.name: _arrays(source, stage.name, chosen) for stage in stages}
    except UserError as error:
        raise ArgumentError(name, str(error)) from None
    if missing := [part for part in options.init_from.required if not _has(source, part)]:
        raise ArgumentError(f"init_from.only={options.init_from.only}", f"there is no {missing[0]} in {source.workdir}")
    parts: dict[str, _Part] = {}
    for stage in stages:
        parts |= _fit_parts(stage, arrays[stage.name], chosen)
    steps = [f"the {stage.name} of step {_step(source, stage.name)}" for stage in stages if arrays[stage.name]]
    said = [part.line for part in parts.values()]
    if not any(part.taken for part in parts.values()):
        raise ArgumentError(name, f"nothing in it fits this run: {'; '.join(said) or 'it has no such part'}")
    lines = [f"init_from: {source.workdir}, {', '.join(steps)}", *(f"init_from: {line}" for line in said)]
    for part in options.frozen if any(stage.name != "prior" for stage in stages) else ():
        if part not in parts or not parts[part].is_whole:
            found = parts[part].line if part in parts else f"there is none in {source.workdir}"
            raise ArgumentError(f"freeze={options.freeze}", f"needs all of the {part}, but {found}")
    if differing := _differences(options, source, with_prior="prior" in parts):
        lines.append(f"init_from: other options there: {', '.join(differing)}")
    if "prior" in parts and class_names != source.class_names:
        lines.append(f"init_from: the prior knows other classes: {_listed(source.class_names)}")
    return Start({stage.name: _given(parts, stage.name) for stage in stages if arrays[stage.name]}, tuple(lines))


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part of a model: which of its arrays are taken, by path, and what is said about it."""

    stage: str
    taken: dict[str, np.ndarray]
    is_whole: bool
    line: str


def _has(source: StoredRun, part: str) -> bool:
    return source.has_prior if part == "prior" else source.image_shape is not None


def _step(source: StoredRun, stage: str) -> int:
    return source.steps["step"] if stage == "prior" else source.autoencoder_step


def _arrays(source: StoredRun, stage: str, parts: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a stage of the other run by path, {} if none of its parts is asked for or there."""
    if not any(_has(source, part) for part in parts if (part == "prior") == (stage == "prior")):
        return {}
    if stage == "prior":
        return _by_path((source.prior_params, None))
    return _by_path((source.variables.params, source.variables.state))


def _by_path(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _place(stage: str, path: Any) -> tuple[str, str, str]:
    """Return the part, the layer and the name of the array at `path` in the pair of params and model state."""
    names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path[1:]]
    if stage == "prior":
        return "prior", "/".join(names[1:-1]), names[-1]
    if names[0] == "batch_stats":
        names = names[1:]
    if names[0] == "quantizer":
        return "quantizer", "", "/".join(names[1:])
    return names[0], "/".join(names[1:-1]), names[-1]


def _fit_parts(stage: Stage, theirs: Mapping[str, np.ndarray], chosen: Iterable[str]) -> dict[str, _Part]:
    """Return each part of `stage` that is asked for, with those of the arrays `theirs` that fit it."""
    if not theirs:
        return {}
    ours = jax.eval_shape(stage.init, jax.random.key(0))
    layers: dict[str, dict[str, dict[str, str]]] = {}  # path by name, by layer, by part
    for path, _ in jax.tree_util.tree_leaves_with_path(ours):
        part, layer, name = _place(stage.name, path)
        layers.setdefault(part, {}).setdefault(layer, {})[name] = jax.tree_util.keystr(path)
    shapes = _by_path(ours)
    parts = {}
    for part in [part for part in PARTS if part in layers and part in chosen]:
        taken: dict[str, np.ndarray] = {}
        misfits: list[str] = []
        for layer, paths in layers[part].items():
            wrong = [
                f"{name} {_form(theirs.get(path))} there, {_form(shapes[path])} here"
                for name, path in paths.items()
                if _form(theirs.get(path)) != _form(shapes[path])
            ]
            if wrong:
                misfits.append(f"{layer} ({wrong[0]})" if layer else wrong[0])
            else:
                taken |= {path: np.asarray(theirs[path]) for path in paths.values()}
        parts[part] = _Part(stage.name, taken, not misfits, _line(part, len(layers[part]), misfits))
    return parts


def _form(array: Any) -> str:
    return "absent" if array is None else f"{'×'.join(map(str, array.shape)) or 'a number'} {array.dtype}"


def _line(part: str, count: int, misfits: list[str]) -> str:
    if not misfits:
        return f"{part}: taken"
    if count == 1:
        return f"{part}: not taken, it starts anew: {misfits[0]}"
    return f"{part}: {count - len(misfits)} of {count} layers taken; these start anew: {_listed(misfits)}"


def _listed(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    return ", ".join(listed[:_MOST_LISTED]) + more


def _differences(options: RunOptions, source: StoredRun, *, with_prior: bool) -> list[str]:
    """Return the options of the models that are not those of the other run."""
    ours, theirs = flatten(to_dict(options)), flatten(to_dict(source.options))
    of_prior = {f"prior.{name}" for name in field_names(PriorOptions)} if with_prior else set()
    keys = [key for key in ours if key.startswith(("latent.", "network.", "codebook.")) or key in of_prior]
    return [f"{key}={theirs[key]} ({ours[key]} here)" for key in keys if ours[key] != theirs[key]]


def _given(parts: Mapping[str, _Part], stage: str) -> GivenArrays:
    of_stage = {name: part for name, part in parts.items() if part.stage == stage}
    arrays = {path: array for part in of_stage.values() for path, array in part.taken.items()}
    return GivenArrays(arrays, has_codes="quantizer" in of_stage and of_stage["quantizer"].is_whole)
