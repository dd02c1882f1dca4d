"""The scripts for SLURM and Cloud TPUs, with stand-ins for the programs of those clusters."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for folder in ("cluster", "benchmarks") for path in (ROOT / folder).glob("*.sh"))
PREEMPTIBLE = ROOT / "cluster" / "preemptible.sh"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_can_be_run_and_pass_shellcheck(script):
    assert os.access(script, os.X_OK)
    shellcheck = shutil.which("shellcheck", path=f"{sys.prefix}/bin:{os.environ['PATH']}")
    for checker in (["bash", "-n"], [shellcheck]):
        done = subprocess.run([*checker, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("status", [0, 1, 7])
def test_preemptible_passes_on_the_status(status):
    assert subprocess.run([PREEMPTIBLE, "bash", "-c", f"exit {status}"]).returncode == status


@pytest.mark.parametrize(
    ("on_sigterm", "status", "signals"),
    [
        ("sleep 0.2; exit 0", 143, 1),
        ("sleep 0.2; exit 0", 143, 3),  # a scheduler that signals again, and every process of a task
        ("exit 5", 5, 1),
    ],
)
def test_preemptible_tells_a_stopped_command_from_a_finished_one(on_sigterm, status, signals):
    command = f"trap '{on_sigterm}' TERM; echo ready; while :; do sleep 0.02; done"
    with subprocess.Popen([PREEMPTIBLE, "bash", "-c", command], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.03)
        assert process.wait(timeout=600) == status


@pytest.fixture
def slurm(tmp_path):
    """Return a function that submits the script to a one-task node, given one status of train.py per attempt."""
    executable(tmp_path / "bin" / "srun", '[[ $1 == --kill-on-bad-exit=0 ]] || exit 99\nshift\nexec "$@"\n')
    executable(tmp_path / "bin" / "scontrol", 'echo "$*" >>requeued\n')
    (tmp_path / "cluster").symlink_to(ROOT / "cluster")
    executable(
        tmp_path / ".venv" / "bin" / "python",
        """
        echo "$*" >>calls
        status=$(sed -n "$(wc -l <calls)p" statuses)
        if [[ $status == preempted ]]; then
          trap 'exit 0' TERM
          kill -TERM "$PPID"
          while :; do sleep 0.02; done
        fi
        exit "$status"
        """,
    )

    def submit(*statuses):
        (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "42"}
        command = ["bash", ROOT / "cluster" / "slurm.sh", "--workdir=/shared/a b"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        requeued = tmp_path / "requeued"
        return (
            done.returncode,
            (tmp_path / "calls").read_text().splitlines(),
            requeued.read_text() if requeued.exists() else "",
        )

    return submit


@pytest.mark.parametrize(
    ("statuses", "expected", "requeued"),
    [
        ((0,), 0, ""),
        (("preempted",), 0, "requeue 42\n"),
        ((137, 1, 0), 0, ""),
        ((134, "preempted"), 0, "requeue 42\n"),
        ((1, 1, 134), 134, ""),
    ],
)
def test_slurm_goes_on_after_preemption_and_crashes(slurm, statuses, expected, requeued):
    assert slurm(*statuses) == (expected, ["train.py --workdir=/shared/a b"] * len(statuses), requeued)


def test_slurm_reads_its_options_before_the_first_command():
    lines = (ROOT / "cluster" / "slurm.sh").read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options
    assert max(options) < first_command
    written = {lines[i].split()[1] for i in options}
    assert {"--requeue", "--open-mode=append", "--signal=TERM@180"} <= written


@pytest.fixture
def cloud(tmp_path):
    """Return a function that runs the TPU script against given answers; it returns the status and the gcloud calls."""
    executable(
        tmp_path / "gcloud",
        """
        # The calls by name: describe takes the next of the states, the training the next of the statuses.
        cd "$(dirname "$0")"
        next() { head -n 1 "$1"; sed -i 1d "$1"; }
        case "$*" in
          *" describe "*)
            answer=$(next states)
            if [[ $answer == NONE ]]; then echo "ERROR: (gcloud) NOT_FOUND: no such resource" >&2; exit 1; fi
            if [[ $answer == OFFLINE ]]; then echo "ERROR: there was a problem" >&2; exit 1; fi
            echo "$answer" ;;
          *" create "*) echo create >>calls ;;
          *" delete "*) echo delete >>calls ;;
          *"preemptible.sh .venv/bin/python train.py "*)
            [[ $* == *"--workdir=/mnt/a\\\\ b "* ]] || exit 98
            echo train >>calls; exit "$(next statuses)" ;;
          *" scp "*) tar -tzf "$5" | grep -qx train.py || exit 97 ;;
        esac
        """,
    )

    def run(states, statuses):
        (tmp_path / "states").write_text("\n".join(states.split()) + "\n")
        (tmp_path / "statuses").write_text("\n".join(statuses.split()) + "\n")
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "POLL_SECONDS": "0"}
        command = [ROOT / "cluster" / "tpu_vm.sh", "--workdir=/mnt/a b"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        return done.returncode, (tmp_path / "calls").read_text().split(), done.stderr

    return run


def test_tpu_vm_asks_again_after_a_preemption(cloud):
    states = "NONE WAITING_FOR_RESOURCES PROVISIONING ACTIVE SUSPENDING SUSPENDED NONE OFFLINE ACTIVE"
    status, calls, _ = cloud(states, "255 0")
    assert (status, calls) == (0, ["create", "train", "delete", "create", "train", "delete"])


def test_tpu_vm_gives_up_on_what_stays_broken(cloud):
    status, calls, errors = cloud("ACTIVE ACTIVE FAILED NONE ACTIVE ACTIVE", "1 1 1 1")
    assert (status, calls) == (1, ["train", "train", "delete", "create", "train", "train"])
    assert "five failures in a row" in errors
