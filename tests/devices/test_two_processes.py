"""Two processes of two devices, one of four, and one with the whole batch train alike, with both kinds of codebook."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hvq_jax.devices.parallel import Parallel
from hvq_jax.training.logging import read_records
from tests.training.small_fit import (
    FROM_DATA,
    HANDED_OVER,
    STEPS,
    TRAININGS,
    evaluated,
    small_fit,
    small_training,
    stage_of,
)

ROOT = Path(__file__).parents[2]

# The same numbers are added up in another order: float32 rounds by 6e-8 at each addition, and a few steps of training
# magnify that. A missing reduction, or a batch cut wrongly, shows in the second digit.
TOLERANCE = 2e-5


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(folder, index, port):
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    environment = {
        **os.environ,
        "XLA_FLAGS": " ".join(flags),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "HVQ_COORDINATOR": f"localhost:{port}",
        "HVQ_NUM_PROCESSES": "2",
        "HVQ_PROCESS_ID": str(index),
    }
    command = [sys.executable, "-m", "tests.training.small_fit", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which two processes have trained, and have resumed a run of one process."""
    folder = tmp_path_factory.mktemp("two")
    small_fit(folder / HANDED_OVER, num_steps=2)
    port = free_port()
    processes = [start(folder, index, port) for index in range(2)]
    for process in processes:
        output, _ = process.communicate(timeout=1000)
        assert process.returncode == 0, output.decode()
    return folder


@pytest.fixture(scope="module")
def by_two(folder):
    """What each of the two processes saw."""
    return [json.loads((folder / f"process_{index}.json").read_text()) for index in range(2)]


def assert_alike(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        # An absolute part for what is a mean of values that nearly cancel.
        np.testing.assert_allclose(value, theirs[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("training", TRAININGS)
def test_every_topology_trains_alike(by_two, training):
    one, _ = small_training(stage_of(training), Parallel("jit"))
    # Moving averages start from data.
    assert one[0]["revived_codes_per_step"] == (0 if training == FROM_DATA else 8)
    for other in (small_training(stage_of(training), Parallel("pmap"))[0], by_two[0]["trained"][training]):
        assert len(one) == len(other) == STEPS
        for ours, theirs in zip(one, other, strict=True):
            assert_alike(ours, theirs)
    assert by_two[0] == by_two[1]


def test_evaluation_counts_every_image_of_every_process_once(by_two):
    assert_alike(by_two[0]["evaluated"], evaluated(Parallel("jit")))


def losses(workdir):
    return [record["loss"] for record in read_records(workdir) if record["split"] == "train"]


def test_a_run_goes_on_on_more_and_on_fewer_processes(folder, tmp_path):
    small_fit(tmp_path / "never interrupted")
    expected = losses(tmp_path / "never interrupted")
    assert len(expected) == STEPS
    np.testing.assert_allclose(losses(folder / HANDED_OVER), expected, rtol=TOLERANCE)
    # Back to one process, from what two of them saved at the end; there are two more steps to take.
    shutil.copytree(folder / HANDED_OVER, tmp_path / "back")
    small_fit(tmp_path / "back", form="jit", num_steps=STEPS + 2)
    assert losses(tmp_path / "back")[:STEPS] == losses(folder / HANDED_OVER)
    assert len(losses(tmp_path / "back")) == STEPS + 2


def test_drift_is_found_and_results_are_collected_across_processes(by_two):
    for seen in by_two:
        assert seen["drifted"] == [2, 3]
        assert seen["gathered"] == (2 * np.arange(8.0)).tolist()
