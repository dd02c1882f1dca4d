"""The changes of a run's options between its starts, `history.json`: at which step, which option, from what to what.

Only options that are declared as `recorded` are in it: what a stage learns depends on the steps that it took with each
of their values, so a run that is resumed has to know them.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import NOT_MADE_AGAIN, read_json, write_json
from hvq_jax.layout import HISTORY
from hvq_jax.options import checked
from hvq_jax.runs.options import KEYS, RECORDED
from hvq_jax.schema import Count
from hvq_jax.training.options import FitOptions

# A change: the step of the option's stage, its dotted name, and its values before and from that step on.
Change = TypedDict("Change", {"step": Count, "option": str, "from": float | str, "to": float | str})


class History(TypedDict):
    """The content of `history.json`."""

    changes: list[Change]


def read_history(workdir: Path) -> list[Change]:
    """Return the changes of a run, oldest first; [] if there were none.

    Raises:
        UserError: the file is damaged, or names an option or a value that there is not.
    """
    path = workdir / HISTORY
    history = (read_json(path, History, advice=NOT_MADE_AGAIN) or {"changes": []})["changes"]
    for change in history:
        option = change["option"]
        if option not in RECORDED:
            raise UserError(f"{path} cannot be used ({option} is no option whose changes are kept): {NOT_MADE_AGAIN}")
        try:
            for value in (change["from"], change["to"]):
                checked(KEYS[option], value)
        except ArgumentError as error:
            raise UserError(f"{path} cannot be used ({error.within('')}): {NOT_MADE_AGAIN}") from None
    return sorted(history, key=lambda change: change["step"])


def write_history(workdir: Path, history: Sequence[Change]) -> None:
    """Write the changes of a run; nothing for a run without any."""
    if history or (workdir / HISTORY).exists():
        write_json(workdir / HISTORY, {"changes": list(history)})


def with_changes(
    history: Sequence[Change], stored: Mapping[str, Any], new: Mapping[str, Any], steps: Mapping[str, int]
) -> list[Change]:
    """Return the history of a run that goes on with other options.

    >>> with_changes([], {"prior.num_epochs": 8}, {"prior.num_epochs": 12}, {"prior": 1000})
    [{'step': 1000, 'option': 'prior.num_epochs', 'from': 8, 'to': 12}]

    Args:
        history: the changes so far.
        stored: the options of the run's config.json by their dotted names.
        new: the options that it goes on with.
        steps: the newest step of each stage that has one.
    """
    changes = {(change["option"], change["step"]): change for change in _in_force(history, stored)}
    for option in RECORDED:
        stage = option.partition(".")[0]
        if option not in stored or stored[option] == new[option] or stage not in steps:
            continue
        key = option, steps[stage]
        before = changes.pop(key)["from"] if key in changes else stored[option]
        if before != new[option]:
            changes[key] = {"step": steps[stage], "option": option, "from": before, "to": new[option]}
    return sorted(changes.values(), key=lambda change: change["step"])


def _in_force(history: Sequence[Change], stored: Mapping[str, Any]) -> list[Change]:
    """Return `history` without a last change of an option that a crash kept out of config.json."""
    last = {change["option"]: change for change in history}
    return [
        change
        for change in history
        if change is not last[change["option"]] or change["to"] == stored.get(change["option"])
    ]


def from_the_start(history: Sequence[Change], stage_name: str) -> list[Change]:
    """Return `history` for a stage that is trained anew: with the options as they are now, from step 0."""
    return [{**change, "step": 0} if change["option"].startswith(f"{stage_name}.") else change for change in history]


def earlier_options(history: Sequence[Change], stage_name: str, options: FitOptions) -> list[tuple[int, FitOptions]]:
    """Return the options that a stage had before, each with the step until which it had them, oldest first.

    >>> history = [{"step": 750, "option": "autoencoder.num_epochs", "from": 6, "to": 9}]
    >>> [(until, before.num_epochs) for until, before in earlier_options(history, "autoencoder", FitOptions())]
    [(750, 6)]

    Args:
        history: the changes of the run, oldest first.
        stage_name: the name of the stage.
        options: its options now.
    """
    of_stage = [change for change in history if change["option"].startswith(f"{stage_name}.") and change["step"]]
    earlier: list[tuple[int, FitOptions]] = []
    for step, changes in itertools.groupby(reversed(of_stage), key=lambda change: change["step"]):
        before: dict[str, Any] = {change["option"].rpartition(".")[2]: change["from"] for change in changes}
        options = dataclasses.replace(options, **before)
        earlier.insert(0, (step, options))
    return earlier


def in_words(history: Sequence[Change], known: Sequence[Change]) -> list[str]:
    """Return a line for each change of `history` that is not among those `known`."""
    return [
        f"change: {change['option']} is {change['to']} from step {change['step']} on, {change['from']} before"
        for change in history
        if change not in known
    ]
