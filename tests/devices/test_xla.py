"""Options in the environment, in separate processes because JAX and XLA read it when they start."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from hvq_jax.devices.xla import keep_compiled_programs
if "after" in sys.argv:
    import jax
keep_compiled_programs()
import jax
print(jax.jit(lambda x: x + 1)(1.0), jax.config.jax_compilation_cache_dir)
"""
PATIENCE = "--xla_cpu_collective_call_terminate_timeout_seconds="
# Device 0 comes seconds after the others to a sum over all.
LATE = """
import sys
from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options
set_cpu_options()
import jax, jax.numpy as jnp, numpy as np

def late(x):
    def busy(x):
        return jax.lax.fori_loop(0, int(sys.argv[1]), lambda _, y: jnp.sin(y) + 1, x)
    return jax.lax.psum(jax.lax.cond(jax.lax.axis_index("devices") == 0, busy, jnp.sin, x), "devices")

jax.block_until_ready(jax.pmap(late, "devices")(np.ones((4, 8), np.float32)))
"""


def run(when="before", **environment):
    """Return the folder that the program printed; it keeps programs before or after importing JAX."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    command = [sys.executable, "-c", PROGRAM, when]
    environment = {**inherited, "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    value, folder = done.stdout.split()
    assert value == "2.0"
    return folder


def kept(folder):
    return sorted(path for path in folder.rglob("*-cache"))


@pytest.mark.parametrize("when", ["before", "after"])
def test_they_are_kept_in_the_cache_folder_of_the_user(when, tmp_path):
    folder = run(when, XDG_CACHE_HOME=str(tmp_path))
    assert Path(folder).parent == tmp_path / "hvq_jax" / "xla"
    programs = kept(tmp_path)
    assert programs
    before = [program.stat().st_mtime_ns for program in programs]
    run(when, XDG_CACHE_HOME=str(tmp_path))  # finds them
    assert kept(tmp_path) == programs
    assert [program.stat().st_mtime_ns for program in programs] == before
    for program in programs:
        program.write_bytes(program.read_bytes()[:50])  # as if it had not been written to its end
    run(when, XDG_CACHE_HOME=str(tmp_path))  # compiles it anew
    run(when, HOME=str(tmp_path / "home"), XDG_CACHE_HOME="")
    assert kept(tmp_path / "home" / ".cache" / "hvq_jax" / "xla")


def test_what_the_user_has_set_stands(tmp_path):
    other = tmp_path / "other"
    for when in ("before", "after"):
        assert run(when, XDG_CACHE_HOME=str(tmp_path / "cache"), JAX_COMPILATION_CACHE_DIR=str(other)) == str(other)
    assert kept(other)
    run(XDG_CACHE_HOME=str(tmp_path / "cache"), JAX_ENABLE_COMPILATION_CACHE="false")
    assert not kept(tmp_path / "cache")


def run_late(length, flags):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4", "XLA_FLAGS": flags}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    command = [sys.executable, "-c", LATE, str(length)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_late_device_ends_the_process_where_xla_is_not_patient():
    """So does a machine with other work: what `Fatal Python error: Aborted` within a pmapped call meant."""
    warning = "--xla_cpu_collective_call_warn_stuck_timeout_seconds=1"
    done = run_late(10**9, f"{warning} {PATIENCE}1")
    assert done.returncode == -signal.SIGABRT
    assert "Termination timeout for `all reduce" in done.stderr
    assert "only 3 of them arrived on time" in done.stderr
    done = run_late(10**8, warning)  # the user's, to which patience is added
    assert done.returncode == 0, done.stderr
    assert "This thread has been waiting for `all reduce" in done.stderr


def test_simulated_devices_get_patience_unless_the_user_says_how_much(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("XLA_FLAGS")
    set_cpu_options()
    flags = os.environ["XLA_FLAGS"].split()
    assert f"{PATIENCE}1800" in flags
    assert len(flags) == 3
    set_cpu_options()  # in a process that this one starts
    assert os.environ["XLA_FLAGS"].split() == flags
    for given, expected in (
        ("--xla_force_host_platform_device_count=4", f"--xla_force_host_platform_device_count=4 {PATIENCE}1800"),
        (f"{PATIENCE}7", f"{PATIENCE}7"),
        ("options.txt", "options.txt"),  # XLA reads them from there
        ("", f"{PATIENCE}1800"),
    ):
        monkeypatch.setenv("XLA_FLAGS", given)
        set_cpu_options()
        assert os.environ["XLA_FLAGS"] == expected


def test_the_suite_itself_is_patient():
    assert PATIENCE in os.environ["XLA_FLAGS"]


@pytest.fixture
def no_cache_given(monkeypatch):
    """The environment of a user who has set nothing."""
    for name in ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"):
        monkeypatch.setenv(name, "0")
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_cache_given")
@pytest.mark.parametrize("place", ["file", "/proc/nothing"])
def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, place, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.usefixtures("no_cache_given")
def test_nothing_is_kept_without_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("hvq_jax.devices.xla.home_folder", lambda: None)
    monkeypatch.chdir(tmp_path)
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert not list(tmp_path.iterdir())
