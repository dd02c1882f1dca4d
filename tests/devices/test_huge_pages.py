import subprocess
import sys

import pytest

from hvq_jax.devices import huge_pages
from hvq_jax.devices.accelerators import chooses_cpu

ASKED = "glibc.malloc.hugetlb=1"
# Says how often it was started, and with what.
PROGRAM = """
import os, pathlib, sys
from hvq_jax.devices import huge_pages
huge_pages._SYSTEM = pathlib.Path(sys.argv[1])
with open(sys.argv[2], "a") as file:
    print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[3:], file=file)
huge_pages.start_again()
"""


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A file in place of Linux's, that says for whom huge pages are."""
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_SYSTEM", path)
    return path


def test_they_are_asked_for_where_linux_gives_them_to_those_who_ask(system):
    assert huge_pages.environment({}) == {"GLIBC_TUNABLES": ASKED}
    for text in ("[always] madvise never\n", "always madvise [never]\n"):
        system.write_text(text)
        assert huge_pages.environment({}) == {}
    system.unlink()
    assert huge_pages.environment({}) == {}


def test_settings_of_the_user_are_kept(system):
    assert huge_pages.environment({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == {}
    other = "glibc.malloc.arena_max=1"
    assert huge_pages.environment({"GLIBC_TUNABLES": other}) == {"GLIBC_TUNABLES": f"{other}:{ASKED}"}


@pytest.mark.parametrize("as_a_module", [False, True])
def test_a_program_starts_again_once_in_its_own_process_with_its_arguments(system, tmp_path, monkeypatch, as_a_module):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    (tmp_path / "program.py").write_text(PROGRAM)
    log = tmp_path / "log"
    program = ["-m", "program"] if as_a_module else [str(tmp_path / "program.py")]
    subprocess.run([sys.executable, *program, str(system), str(log), "--flag", "two words"], check=True)
    (first, before), (second, after) = (line.split(maxsplit=1) for line in log.read_text().splitlines())
    assert first == second
    assert before == "None ['--flag', 'two words']"
    assert after == f"{ASKED} ['--flag', 'two words']"


def test_a_debugged_program_goes_on(system, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "gettrace", lambda: print)
    monkeypatch.setattr("os.execve", lambda *arguments: pytest.fail("started again"))
    huge_pages.start_again()


def test_an_accelerator_is_chosen_where_its_plugin_is_installed(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert chooses_cpu()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == "libtpu" else None)
    assert not chooses_cpu()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert chooses_cpu()
