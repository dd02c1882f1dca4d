"""Where compiled programs are cached, in separate processes because JAX reads the environment on import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from hvq_jax.devices.xla import keep_compiled_programs
keep_compiled_programs()
import jax
print(jax.jit(lambda x: x + 1)(1.0), jax.config.jax_compilation_cache_dir)
"""


def run(**environment):
    """Return what the program printed; nothing may appear on stderr."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    command = [sys.executable, "-c", PROGRAM]
    environment = {**inherited, "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    value, folder = done.stdout.split()
    assert value == "2.0"
    return folder


def kept(folder):
    return sorted(path for path in folder.rglob("*-cache"))


def test_they_are_kept_in_the_cache_folder_of_the_user(tmp_path):
    folder = run(XDG_CACHE_HOME=str(tmp_path))
    assert Path(folder).parent == tmp_path / "hvq_jax" / "xla"
    programs = kept(tmp_path)
    assert programs
    before = [program.stat().st_mtime_ns for program in programs]
    run(XDG_CACHE_HOME=str(tmp_path))  # finds them
    assert kept(tmp_path) == programs
    assert [program.stat().st_mtime_ns for program in programs] == before
    run(HOME=str(tmp_path / "home"), XDG_CACHE_HOME="")
    assert kept(tmp_path / "home" / ".cache" / "hvq_jax" / "xla")


def test_one_that_was_not_written_to_its_end_is_compiled_anew(tmp_path):
    run(XDG_CACHE_HOME=str(tmp_path))
    for program in kept(tmp_path):
        program.write_bytes(program.read_bytes()[:50])
    run(XDG_CACHE_HOME=str(tmp_path))


def test_what_the_user_has_set_stands(tmp_path):
    other = tmp_path / "other"
    assert run(XDG_CACHE_HOME=str(tmp_path / "cache"), JAX_COMPILATION_CACHE_DIR=str(other)) == str(other)
    assert kept(other)
    run(XDG_CACHE_HOME=str(tmp_path / "cache"), JAX_ENABLE_COMPILATION_CACHE="false")
    assert not kept(tmp_path / "cache")


@pytest.mark.parametrize("place", ["file", "/proc/nothing"])
def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, place):
    (tmp_path / "file").write_text("no folder")
    assert run(XDG_CACHE_HOME=str(tmp_path / place)) == "None"
