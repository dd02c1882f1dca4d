"""A trace of a few steps, if requested."""

import gzip
import json

import pytest

from hvq_jax.training.profiling import StepProfiler
from tests.training.small_fit import small_fit


def traced_steps(folder):
    """Return how often the compiled step was started in the trace."""
    (trace,) = folder.rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))
    events = events["traceEvents"] if isinstance(events, dict) else events
    return sum(event.get("name", "").startswith("PjitFunction") for event in events)


def test_the_steps_asked_for_are_traced(tmp_path, capsys):
    rarely = {"eval_every_steps": 16, "log_every_steps": 16, "check_replicas_every_steps": 0}
    small_fit(tmp_path, num_steps=16, profile_steps=3, **rarely)
    folder = tmp_path / "profile" / "autoencoder"
    lines = [line for line in capsys.readouterr().out.splitlines() if "profile" in line]
    assert len(lines) == 1
    assert f"profile of steps 11 to 13: {folder}" in lines[0]
    assert list(folder.rglob("*.xplane.pb"))
    started = traced_steps(folder)  # JAX may record a start at several levels
    assert started > 0
    assert started % 3 == 0


def test_it_ends_with_the_last_step(tmp_path, capsys):
    small_fit(tmp_path, num_steps=12, eval_every_steps=12, profile_steps=100)
    assert "profile of steps 11 to 12:" in capsys.readouterr().out


def test_a_training_too_short_for_it_says_so(tmp_path, capsys):
    small_fit(tmp_path, num_steps=4, profile_steps=2)
    assert "profile: none, because training ended within the first 10 steps" in capsys.readouterr().out
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize(("asked", "first"), [(0, True), (3, False)])
def test_nothing_is_traced_unasked_or_by_another_process_than_the_first(tmp_path, monkeypatch, asked, first):
    monkeypatch.setattr("hvq_jax.training.profiling.is_first", lambda: first)
    profiler = StepProfiler(tmp_path, "toy", asked, start_step=0, last_step=99)
    for step in range(1, 20):
        profiler.before(None)
        assert profiler.after(step, None) is None
    assert profiler.close() is None
    assert not list(tmp_path.iterdir())
