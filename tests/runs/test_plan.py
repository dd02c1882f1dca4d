"""What `--plan` times: the dispatches that training makes, equally many in every process."""

import jax
import numpy as np

from hvq_jax.devices import cluster
from hvq_jax.runs import plan


def test_processes_stop_timing_together(monkeypatch):
    slowest = 3  # the dispatch after which the other process, whose clock is another, has measured long enough
    dispatches = []

    def compiled(state, group):
        dispatches.append(group)
        return state, np.zeros(1)

    monkeypatch.setattr(plan, "_SECONDS", 0.0)  # long enough for this process after any dispatch
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        cluster.multihost_utils, "process_allgather", lambda own: np.array([own, len(dispatches) > slowest])
    )
    plan._seconds_per_dispatch(compiled, None, None)
    assert len(dispatches) == slowest + 1
