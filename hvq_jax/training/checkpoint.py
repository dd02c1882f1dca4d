"""Checkpoints through Orbax: atomic, asynchronous, verified when read; the newest n and the best are kept.

Orbax restores damaged data silently and casts a wrong dtype silently, so every step also stores the digest, shape and
dtype of each leaf. A step that does not match is moved aside, never deleted, and the previous one is used.

In a cluster every process makes the same calls with the same state, on a folder that all of them see: the first
process writes the state and moves bad steps aside, and all processes read it, so that any number of processes can
resume. The state is written as numpy arrays: from arrays on several devices Orbax would cut slices, with a small
program per leaf.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from hvq_jax.devices.cluster import is_first, true_on_all, wait_for_all
from hvq_jax.devices.preemption import uninterrupted
from hvq_jax.errors import UserError
from hvq_jax.files import full_path

_OVERHEAD_BYTES = 2**20  # of a checkpoint's metadata, generously


def leaf_digests(tree: Any) -> dict[str, str]:
    """Return a map from the path of each leaf to "dtype shape SHA-256", for a pytree of numpy arrays."""
    return {path: _digest(np.asarray(leaf)) for path, leaf in _leaves(tree).items()}


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _digest(leaf: np.ndarray) -> str:
    sha = hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
    return f"{leaf.dtype} {list(leaf.shape)} {sha}"


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
        """Open `folder`; with `read_only` change nothing in it, since a run may be writing to it."""
        self.folder = full_path(folder)
        self.objective = objective
        self.keep = keep
        self.read_only = read_only
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        def objective(metrics: dict[str, float]) -> float:
            return metrics[self.objective]

        best = BestN(get_metric_fn=objective, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(self.keep), best]),
            best_fn=objective,
            best_mode="min",
            cleanup_tmp_directories=not self.read_only,
            create=not self.read_only,
            read_only=self.read_only,
        )
        if not self.read_only and is_first():
            self._set_aside_incomplete()
        wait_for_all("open checkpoints")
        with uninterrupted():
            return ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """Return the saved steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, metrics: dict[str, float] | None = None) -> None:
        """Start saving `state` as `step` and return; with `metrics` (finite floats) it is a candidate for the best.

        The leaves are arrays of jax or numpy, which may be changed or donated once this has returned.

        Raises UserError if the disk is too full or if writing an earlier step failed.
        """
        self.wait()
        state = jax.device_get(state)
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD_BYTES
        # Checked before anything is written, since Orbax's threads would fill the terminal with their errors.
        if not true_on_all(shutil.disk_usage(self.folder).free > needed):
            raise self._not_saved(OSError(f"{needed / 2**20:.0f} MiB are needed: No space left on device"))
        try:
            with uninterrupted():
                saved = self._manager.save(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(state),
                        digests=ocp.args.JsonSave(leaf_digests(state)),
                    ),
                    metrics=metrics,
                )
        except Exception as error:  # from the writers of the previous step
            raise self._not_saved(error) from error
        if not saved:
            raise UserError(f"checkpoint {self.folder / str(step)} already exists and was not overwritten")

    def wait(self) -> None:
        """Wait until everything saved is on disk; raise UserError if writing failed."""
        try:
            with uninterrupted():
                self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_saved(error) from error

    def _not_saved(self, error: Exception) -> UserError:
        written = [int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit() and _is_complete(path)]
        kept = f"that of step {max(written)} is the newest" if written else "there is none before it"
        return UserError(
            f"could not write a checkpoint to {self.folder} ({_reason(error)}); {kept}: fix that and run the same "
            "command again"
        )

    def best_step(self) -> int | None:
        """Return the step with the smallest objective, the newest if none was evaluated, or None if there is none."""
        return self._manager.best_step()

    def restore_latest(self, like: Any) -> Any | None:
        """Return the newest good state as numpy arrays, with the structure, shapes and dtypes of `like`.

        Return None if nothing was ever saved; raise UserError if something was saved but none of it is usable.
        """
        if not self.steps() and not list(self.folder.glob("bad-*")):
            return None
        while (step := self._manager.latest_step()) is not None:
            state = self._restore(step, like)
            if state is not None:
                return state
        raise UserError(
            f"none of the checkpoints in {self.folder} is usable: repair that folder, or move it away to start over"
        )

    def restore_best(self, like: Any) -> Any:
        """Return the good state with the smallest objective, else the newest; raise UserError if there is none."""
        while (step := self._manager.best_step()) is not None:
            state = self._restore(step, like)
            if state is not None:
                return state
        raise UserError(f"no usable checkpoint in {self.folder}: train this stage first")

    def _restore(self, step: int, like: Any) -> Any | None:
        """Return the state of `step`, or None after moving it aside as damaged; raise UserError if of another model."""
        state, problem = None, ""
        try:
            state = self._read_verified(step, like)
        except UserError:
            raise
        except Exception as error:  # Orbax has no common class for damaged files
            problem = _first_line(error)
        if true_on_all(not problem):
            return state
        self._set_aside(step, problem or "damaged when read by another process")
        return None

    def _read_verified(self, step: int, like: Any) -> Any:
        digests = self._read(step, digests=ocp.args.JsonRestore()).digests
        found = {path: digest.rsplit(" ", 1)[0] for path, digest in digests.items()}
        expected = {path: f"{leaf.dtype} {list(leaf.shape)}" for path, leaf in _leaves(like).items()}
        for path in sorted({*found, *expected}):
            if found.get(path) != expected.get(path):
                raise UserError(
                    f"checkpoint {self.folder / str(step)} is of another model: {path} is {found.get(path, 'absent')} "
                    f"there, {expected.get(path, 'absent')} here"
                )
        target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        state = jax.device_get(self._read(step, state=ocp.args.StandardRestore(target)).state)
        actual = leaf_digests(state)
        wrong = sorted(path for path in digests if actual[path] != digests[path])
        if wrong:
            raise ValueError(f"the data differ from what was saved in {', '.join(wrong[:3])}")
        return state

    def _read(self, step: int, **items: Any) -> Any:
        with uninterrupted():
            return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _set_aside(self, step: int, reason: str) -> None:
        """Rename a damaged step, so that it no longer counts as one."""
        if self.read_only:
            raise UserError(
                f"checkpoint {self.folder / str(step)} is not usable ({reason}): run train.py on this workdir again, "
                "which falls back to the last good one"
            )
        with uninterrupted():
            self._manager.close()
        wait_for_all("before a step is moved aside")
        if is_first():
            _rename_bad(self.folder / str(step), reason)
        self._manager = self._open()

    def _set_aside_incomplete(self) -> None:
        # A step without its commit marker would count as a step, or prevent the manager from opening.
        for path in self.folder.glob("[0-9]*"):
            if path.name.isdigit() and not _is_complete(path):
                _rename_bad(path, "incomplete")

    def close(self) -> None:
        """Wait for what is being saved and release the folder; raise UserError like `wait`."""
        try:
            with uninterrupted():
                self._manager.close()
        except Exception as error:
            raise self._not_saved(error) from error


def _is_complete(path: Path) -> bool:
    return (path / "_CHECKPOINT_METADATA").is_file()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def _reason(error: Exception) -> str:
    # The writers wrap the message of the system in a page of text.
    said = re.search("No space left on device|Disk quota exceeded|Read-only file system|Permission denied", str(error))
    return said[0] if said else _first_line(error)


def _rename_bad(path: Path, reason: str) -> None:
    target = path.with_name(f"bad-{path.name}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"bad-{path.name}-{number}")
    path.rename(target)
    print(f"checkpoint {path} is not usable ({reason}): moved to {target.name}", flush=True)
