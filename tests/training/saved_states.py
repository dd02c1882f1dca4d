"""Checkpoints of tiny states for the tests: each state follows from its step."""

import chex
import numpy as np

from hvq_jax.training.checkpoint import Checkpoints


def state_of(step):
    """Return the state that is saved at `step`."""
    return {
        "params": {"kernel": np.full((4, 300), step, np.float32), "none": None},
        "step": np.int32(step),
        "tuple": (np.arange(3, dtype=np.float32) / step if step else np.zeros(3, np.float32),),
    }


LIKE = state_of(0)


def saved(folder, objectives, keep=2):
    """Save steps 1, 2, … with these objectives, None: without metrics; return the open checkpoints."""
    checkpoints = Checkpoints(folder, objective="mse", keep=keep)
    for step, objective in enumerate(objectives, start=1):
        checkpoints.save(step, state_of(step), None if objective is None else {"mse": objective})
    checkpoints.wait()
    return checkpoints


def step_of(state):
    """Return the step of a restored state, after checking that the state is exactly what was saved."""
    step = int(state["step"])
    chex.assert_trees_all_equal(state, state_of(step))
    chex.assert_trees_all_equal_dtypes(state, state_of(step))
    return step


def files_of(folder):
    """Return the content of all files below `folder`."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(folder):
    """Flip one bit of each data file of a checkpoint: which of them are read differs between savings."""
    for path in folder.glob("state/**/d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
