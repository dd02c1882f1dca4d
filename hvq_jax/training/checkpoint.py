"""Checkpoints through Orbax: atomic, asynchronous, verified when read; the newest n and the best are kept.

A step that is damaged, as defined in `saved_step`, is moved aside, never deleted, and the previous one is used. A step
that cannot be read for another reason ends the run, and stays where it is.

In a cluster every process makes the same calls with the same state, on a folder that all of them see: the first
process writes the state and moves bad steps aside, and all processes read it, so that any number of processes can
resume. The state is written as numpy arrays: from arrays on several devices Orbax would cut slices, with a small
program per leaf.
"""

import contextlib
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from hvq_jax.devices.cluster import agreed, is_first, true_on_all, wait_for_all, warn
from hvq_jax.devices.preemption import uninterrupted
from hvq_jax.errors import UserError
from hvq_jax.files import full_path
from hvq_jax.progress import print_warning
from hvq_jax.training import saved_step
from hvq_jax.training.saved_step import DamagedError, DeletedError, first_line

if TYPE_CHECKING:
    import orbax.checkpoint as ocp  # imported where it is used, see `saved_step`

_OVERHEAD_BYTES = 2**20  # of a checkpoint's metadata, generously
_BAD = "bad-"  # before the name of a step that was moved aside
_DELETED = "deleted-"  # before that of one that is being deleted
_UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax's, after the name of a step that is being written

# While Orbax starts to save, the threads that it starts take a number from a global variable by which they find each
# other: two saves that start at once in two threads would mistake the other's threads for their own.
_starting_to_save = threading.Lock()


class Checkpoints:
    """The checkpoints of one stage in `folder`; `objective` is the metric whose smallest value is the best."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        objective: str,
        keep: int = 2,
        read_only: bool = False,
    ) -> None:
        """Open `folder`; with `read_only` change nothing in it, since a run may be writing to it.

        Raises UserError if a checkpoint in it cannot be read.
        """
        self.folder = full_path(folder)
        self.objective = objective
        self.keep = keep
        self.read_only = read_only
        self._objectives: dict[int, float | None] = {}  # of each saved step; None: it was not evaluated
        self._unranked: set[int] = set()  # steps whose metrics are damaged
        self._writing: tuple[int, float | None] | None = None  # a step and its objective
        self._writer: ocp.AsyncCheckpointer | None = None
        with agreed():
            if not read_only and is_first():
                self._tidy()
        wait_for_all("open checkpoints")
        with agreed():
            self._list()

    def _tidy(self) -> None:
        """Remove what a killed process left, and set aside steps that would count as saved but are incomplete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name.startswith(_DELETED) or path.name.endswith(_UNFINISHED):
                shutil.rmtree(path, ignore_errors=True)
            elif _is_step(path) and not saved_step.is_complete(path):
                _rename_bad(path, "incomplete")

    def _list(self) -> None:
        """Find the saved steps and their objectives."""
        self._objectives = {}
        for path in self.folder.iterdir():
            if not _is_step(path):
                continue
            if not saved_step.is_complete(path):
                if path.is_dir():  # it was not deleted meanwhile
                    warn(f"checkpoint {path} is incomplete and passed over: run train.py on this workdir again")
                continue
            try:
                self._objectives[int(path.name)] = saved_step.read_metric(path, self.objective)
            except DeletedError:
                continue
            except DamagedError as error:
                self._objectives[int(path.name)] = None
                self._warn_unranked(path, str(error))

    def _warn_unranked(self, path: Path, reason: str) -> None:
        if int(path.name) not in self._unranked:
            self._unranked.add(int(path.name))
            warn(f"checkpoint {path}: its metrics are damaged ({reason}): it is kept but cannot count as the best")

    def steps(self) -> list[int]:
        """Return the saved steps, ascending."""
        return sorted(self._objectives)

    def save(self, step: int, state: Any, metrics: dict[str, float] | None = None) -> None:
        """Start saving `state` as `step` and return; with `metrics` (finite floats) it is a candidate for the best.

        The leaves are arrays of jax or numpy, which may be changed or donated once this has returned.

        Raises UserError if the disk is too full or if writing an earlier step failed.
        """
        self.wait()
        folder = self.folder / str(step)
        if step in self._objectives:
            raise UserError(f"checkpoint {folder} already exists and was not overwritten")
        state = jax.device_get(state)
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD_BYTES
        # Checked before anything is written, since Orbax's threads would fill the terminal with their errors.
        if not true_on_all(shutil.disk_usage(self.folder).free > needed):
            raise self._not_saved(OSError(f"{needed / 2**20:.0f} MiB are needed: No space left on device"))
        self._writing = step, None if metrics is None else float(metrics[self.objective])
        try:
            with uninterrupted(), _starting_to_save:
                self._open_writer().save(
                    folder, args=saved_step.items(state, metrics), custom_metadata=saved_step.metadata(metrics)
                )
        except Exception as error:
            self._writing = None
            raise self._not_saved(error) from error

    def _open_writer(self) -> "ocp.AsyncCheckpointer":
        import orbax.checkpoint as ocp

        if self._writer is None:
            # Before the step gets its final name, so that it never lacks its sums.
            options = ocp.options.AsyncOptions(post_finalization_callback=self._write_sums)
            self._writer = ocp.AsyncCheckpointer(saved_step.make_handler(), async_options=options)
        return self._writer

    def _write_sums(self) -> None:
        assert self._writing is not None
        saved_step.write_sums(self.folder / f"{self._writing[0]}{_UNFINISHED}")

    def wait(self) -> None:
        """Wait until everything saved is on disk; raise UserError if writing failed."""
        self._finish(lambda writer: writer.wait_until_finished())

    def close(self) -> None:
        """Wait for what is being saved and release the folder; raise UserError like `wait`."""
        self._finish(lambda writer: writer.close())

    def _finish(self, wait: "Callable[[ocp.AsyncCheckpointer], None]") -> None:
        if self._writer is None:
            return
        try:
            with uninterrupted():
                wait(self._writer)
        except Exception as error:
            self._writing = None
            raise self._not_saved(error) from error
        if self._writing is not None:
            (step, objective), self._writing = self._writing, None
            self._objectives[step] = objective
            self._delete_old()

    def _delete_old(self) -> None:
        """Delete all steps but the newest, the best, and those that may have been the best."""
        kept = {*self.steps()[-self.keep :], self.best_step(), *self._unranked}
        for step in [step for step in self.steps() if step not in kept]:
            del self._objectives[step]
            if is_first():
                # Renamed first: to a reader, a step is whole or gone.
                deleted = (self.folder / str(step)).rename(self.folder / f"{_DELETED}{step}")
                shutil.rmtree(deleted, ignore_errors=True)

    def _not_saved(self, error: Exception) -> UserError:
        kept = f"that of step {self.steps()[-1]} is the newest" if self.steps() else "there is none before it"
        return UserError(
            f"could not write a checkpoint to {self.folder} ({_reason(error)}); {kept}: fix that and run the same "
            "command again"
        )

    def best_step(self) -> int | None:
        """Return the step with the smallest objective, the newest if none was evaluated, or None if there is none."""
        return _best(self._objectives)

    def lost_best_step(self) -> int | None:
        """Return the step that was better than all that are left but was set aside as damaged, None if none was."""
        best, lost = self.best_step(), dict[int, float | None]()
        smallest = None if best is None else self._objectives[best]
        for path in self.folder.glob(f"{_BAD}*"):
            name = re.fullmatch(rf"{_BAD}(\d+)(-\d+)?", path.name)
            if not name or int(name[1]) in self._objectives:  # it was taken again
                continue
            with contextlib.suppress(DamagedError, DeletedError, UserError):
                objective = saved_step.read_metric(path, self.objective)
                if objective is not None and (smallest is None or objective < smallest):
                    lost[int(name[1])] = objective
        return _best(lost)

    def best_of_finished(self, last: int) -> int | None:
        """Return the best step of a training that has taken its `last` one, if the checkpoints are surely whole.

        Nothing but the sums of files is read. None means that `restore_latest` has to find out more.
        """
        steps, best = self.steps(), self.best_step()
        if not true_on_all(bool(steps) and steps[-1] >= last and not self._unranked and self.lost_best_step() is None):
            return None
        intact = all(saved_step.is_intact(self.folder / str(step)) for step in {steps[-1], best})
        return best if true_on_all(intact) else None

    def restore_latest(self, like: Any) -> Any | None:
        """Return the newest good state as numpy arrays, with the structure, shapes and dtypes of `like`.

        Return None if nothing was ever saved. Raises UserError if something was saved but none of it is usable, or if
        a checkpoint cannot be read.
        """
        if not self.steps() and not list(self.folder.glob(f"{_BAD}*")):
            return None
        while self.steps():
            state = self._restore(self.steps()[-1], like)
            if state is not None:
                return state
        raise UserError(
            f"none of the checkpoints in {self.folder} is usable: repair that folder, or move it away to start over"
        )

    def restore_best(self, like: Any) -> Any:
        """Return the good state with the smallest objective, else the newest.

        Raises UserError if there is none, or if a checkpoint cannot be read.
        """
        while (step := self.best_step()) is not None:
            state = self._restore(step, like)
            if state is not None:
                return state
        raise UserError(f"no usable checkpoint in {self.folder}: train this stage first, or wait for its first one")

    def _restore(self, step: int, like: Any) -> Any | None:
        """Return the state of `step`, or None if it was moved aside as damaged or deleted by the run that trains."""
        folder, state, damage, deleted = self.folder / str(step), None, "", False
        with agreed():
            try:
                state = saved_step.read_state(folder, like)
            except DamagedError as error:
                damage = str(error)
            except DeletedError:
                deleted = self.read_only
                if not deleted:
                    raise UserError(f"checkpoint {folder} was removed while it was read: try again") from None
        if self.read_only and not true_on_all(not deleted):
            self._list()
            return None
        if true_on_all(not damage):
            return state
        if not true_on_all(bool(damage)):
            raise UserError(
                f"checkpoint {folder} is damaged ({damage or 'as other processes read it'}), but not on all processes: "
                "it was left as it is; check that all of them see the same files, then try again"
            )
        self._set_aside(step, damage)
        return None

    def _set_aside(self, step: int, reason: str) -> None:
        """Rename a damaged step, so that it no longer counts as one."""
        if self.read_only:
            raise UserError(
                f"checkpoint {self.folder / str(step)} is not usable ({reason}): run train.py on this workdir again, "
                "which falls back to the last good one"
            )
        with agreed():
            if is_first():
                _rename_bad(self.folder / str(step), reason)
        del self._objectives[step]
        self._unranked.discard(step)


def _best(objectives: Mapping[int, float | None]) -> int | None:
    """Return the newest of the steps with the smallest objective, or the newest of all if none has one."""
    ranked = {step: objective for step, objective in objectives.items() if objective is not None}
    return max(ranked or objectives, key=lambda step: (-ranked.get(step, 0.0), step), default=None)


def newest_step(folder: Path) -> int | None:
    """Return the newest saved step in a folder of checkpoints, None if there is none; nothing is read but names."""
    steps = [int(path.name) for path in folder.glob("*") if _is_step(path) and saved_step.is_complete(path)]
    return max(steps, default=None)


def free_name(path: Path) -> Path:
    """Return `path`, with a number behind its name if that is taken."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())


def _is_step(path: Path) -> bool:
    return re.fullmatch("0|[1-9][0-9]*", path.name) is not None


def _reason(error: Exception) -> str:
    # The writers wrap the message of the system in a page of text.
    said = re.search("No space left on device|Disk quota exceeded|Read-only file system|Permission denied", str(error))
    return said[0] if said else first_line(error)


def _rename_bad(path: Path, reason: str) -> None:
    target = free_name(path.with_name(f"{_BAD}{path.name}"))
    path.rename(target)
    print_warning(f"checkpoint {path} is not usable ({reason}): moved to {target.name}")
