"""A command's streams, ctrl-C, exit status, and its one line where the process cannot run it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvq_jax.command import exit_status
from hvq_jax.errors import Preempted, UserError

ROOT = Path(__file__).parents[1]


def run(program, *, environment=None, shell=""):
    """Run `program` in a fresh process, through the shell with `shell` added, such as a redirection."""
    environment = {**os.environ, "PROGRAM": program, **(environment or {})}
    command = f'exec "{sys.executable}" -c "$PROGRAM" {shell}'
    return subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, timeout=300)


STARTED = "from hvq_jax.command import exit_status, start; start(); import sys\n"


@pytest.mark.parametrize(
    ("raised", "status", "says"),
    [
        (Preempted("saved"), 0, "saved\n"),
        (UserError("bad"), 1, "error: bad\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (MemoryError(), 1, "error: out of memory (): choose a smaller batch or model\n"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: 5 GiB\nmore"),
            1,
            "error: out of memory (RESOURCE_EXHAUSTED: 5 GiB): choose a smaller batch or model\n",
        ),
    ],
)
def test_the_exit_status_follows_from_what_ended_the_command(raised, status, says, capsys):
    def command():
        raise raised

    handler = signal.getsignal(signal.SIGINT)
    assert exit_status(command) == status
    assert capsys.readouterr().err == says
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_fault_of_the_program_stays_a_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 // 0)


@pytest.mark.parametrize("text", ["4×4 é", "caf\udce9.png", "plain"])
def test_text_that_the_terminal_cannot_show_is_escaped(text):
    done = run(f"{STARTED}sys.exit(exit_status(lambda: print({text!a})))", environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == text.encode("ascii", "backslashreplace") + b"\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_never_give_their_numbers_to_a_file(tmp_path, closed):
    program = (
        f"{STARTED}import os\n"
        f"with open({str(tmp_path / 'file')!r}, 'w') as file:\n"
        "    assert file.fileno() > 2, file.fileno()\n"
        "    print('to nobody'); print('to nobody', file=sys.stderr); os.write(1, b'raw'); os.write(2, b'raw')\n"
    )
    done = run(program, shell=closed)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_the_backend_of_a_notebook_does_not_matter():
    program = f"{STARTED}import hvq_jax.evaluation.plots"
    done = run(program, environment={"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert done.returncode == 0, done.stderr


def test_an_interpreter_without_jax_is_told_how_to_get_it(tmp_path):
    program = "import importlib.util as u; u.find_spec = lambda name: None\n" + STARTED
    done = run(program)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"has no JAX: use the environment that `make quickstart` installs" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("where", ["imports", "command"])
def test_ctrl_c_is_never_a_traceback(where):
    waits = "print('ready', flush=True); import time; time.sleep(60)"
    program = STARTED + (waits if where == "imports" else f"sys.exit(exit_status(lambda: exec({waits!r})))")
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error == ("" if where == "imports" else "interrupted\n")
    assert process.returncode == (-signal.SIGINT if where == "imports" else 130)


def test_devices_that_are_not_there_are_named_in_one_line():
    program = f"{STARTED}from hvq_jax.devices.parallel import find_devices\nsys.exit(exit_status(find_devices))"
    done = run(program, environment={"JAX_PLATFORMS": "cuda"})
    assert done.returncode == 1
    assert b"error: JAX finds no device with JAX_PLATFORMS=cuda" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["JAX_ENABLE_X64", "JAX_DEBUG_NANS", "JAX_DEFAULT_MATMUL_PRECISION"])
def test_a_setting_that_jax_cannot_read_is_one_line(name):
    done = run(f"{STARTED}import jax", environment={name: "nonsense"})
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: an environment variable of JAX cannot be used: ")
    assert done.stderr.count(b"\n") == 1


def test_other_errors_of_imports_stay_tracebacks():
    done = run(f"{STARTED}raise ValueError('mine')")
    assert b"Traceback" in done.stderr
