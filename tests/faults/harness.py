"""Shared by the fault scripts: a small run of both stages by `train.py`, and all that it must leave, bit for bit."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
CHECKPOINTS = Path("checkpoints")

OPTIONS = (
    "--config=configs/quickstart.py:combined",
    "--config.latent.dim=8",
    "--config.latent.num_codes=16",
    "--config.latent.num_frequent=8",
    "--config.autoencoder.batch_size=16",
    "--config.autoencoder.num_steps=24",
    "--config.autoencoder.eval_every_steps=8",
    "--config.autoencoder.checkpoint_every_steps=1",
    "--config.autoencoder.check_replicas_every_steps=5",
    "--config.prior.width=8",
    "--config.prior.num_layers=2",
    "--config.prior.head_width=8",
    "--config.prior.batch_size=16",
    "--config.prior.num_steps=12",
    "--config.prior.eval_every_steps=4",
    "--config.prior.checkpoint_every_steps=1",
    "--config.prior.coded_images=16",
    "--config.sampling.classify=False",
    "--config.sampling.per_class=2",
)


class Bench:
    """A folder for the runs of one script, in which images are prepared once and compiled programs are cached."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hvq_jax_faults_"))
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def arguments(self, workdir: Path, *more: str) -> list[str]:
        return [*OPTIONS, f"--config.data.data_dir={self.folder / 'data'}", f"--workdir={workdir}", *more]

    def start(self, workdir: Path, *more: str) -> subprocess.Popen[str]:
        """Start one process with two devices."""
        return self.launch([sys.executable, "train.py", *self.arguments(workdir, *more)], JAX_NUM_CPU_DEVICES="2")

    def start_two(self, workdir: Path, *more: str) -> subprocess.Popen[str]:
        """Start two processes with two devices each."""
        return self.launch(["cluster/local.sh", "2", "2", *self.arguments(workdir, *more)], PYTHON=sys.executable)

    def launch(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that signals to this script do not reach it
        )


def finish(process: "subprocess.Popen[str]", seconds: float = 300) -> str:
    """Wait for the end of a run that must succeed; return its output."""
    output, _ = process.communicate(timeout=seconds)
    check(process.returncode == 0, f"ended with status {process.returncode}:\n{output}")
    return output


def check(condition: bool, what: str) -> None:
    """Exit the script unless `condition` holds."""
    if not condition:
        sys.exit(f"FAILED: {what}")


def wait_until(condition, process: "subprocess.Popen[str]", seconds: float = 200) -> bool:
    """Poll until `condition()`; return False if the process ends first."""
    until = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        check(time.monotonic() < until, "waited too long")
        time.sleep(0.002)
    return True


def what_it_left(workdir: Path) -> dict[str, object]:
    """Return everything that must be equal: the newest states' digests, every logged metric, latents, the summary."""
    left: dict[str, object] = {}
    for stage in ("autoencoder", "prior"):
        folder = workdir / CHECKPOINTS / stage
        newest = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        left[stage] = (newest, json.loads((folder / str(newest) / "digests" / "metadata").read_text()))
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = ("images_per_second", "latents_per_second")
    left["records"] = [{name: value for name, value in record.items() if name not in timed} for record in records]
    with np.load(workdir / "latents.npz", allow_pickle=False) as latents:
        left["latents"] = {name: latents[name].tolist() for name in latents}
    left["summary"] = json.loads((workdir / "summary.json").read_text())
    return left


def check_equal(ours: dict[str, object], expected: dict[str, object]) -> None:
    """Exit the script, naming the differences, unless two runs left the same."""
    differing = [name for name in expected if ours[name] != expected[name]]
    check(not differing, f"not bit-identical to the uninterrupted run: {', '.join(differing)}")
