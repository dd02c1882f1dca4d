"""The share of other processes, from readings of /proc as the kernel writes them."""

import contextlib
import math

import psutil
import pytest

from benchmarks.measuring import comparison, torch_trials
from benchmarks.measuring.comparison import Measurement
from benchmarks.measuring.quiet import ATTEMPTS, QUIET, Quietly, read, share_of_others
from benchmarks.peers.torch_settings import TorchSettings
from benchmarks.workloads.rows import OURS, ROWS, TORCH
from hvq_jax.errors import UserError


class Proc:
    """A folder like /proc of two cores, in ticks of the kernel."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = {}
        self.machine(user=0, idle=0)

    def machine(self, *, user, idle, nice=0, system=0, iowait=0, irq=0, softirq=0, steal=0, guest=0):
        fields = (user, nice, system, idle, iowait, irq, softirq, steal, guest, 0)
        self._write("stat", f"cpu  {' '.join(map(str, fields))}\nbtime 0\n")

    def process(self, pid, parent, *, user, system=0, children=(0, 0)):
        # From field 3 of proc(5): state, parent, nine others, utime, stime, cutime, cstime, four others, start time.
        name = "a ) name"
        before, after = "0 " * 9, "20 0 1 0"
        times = f"{user} {system} {children[0]} {children[1]}"
        self._write(f"{pid}/stat", f"{pid} ({name}) S {parent} {before}{times} {after} {pid} {'0 ' * 30}\n")
        self._write(f"{pid}/status", f"Name:\t{name}\nPPid:\t{parent}\n")

    def end(self, pid):
        for file in (self.folder / str(pid)).iterdir():
            file.unlink()
        (self.folder / str(pid)).rmdir()

    def _write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.fixture
def proc(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    return Proc(tmp_path)


def test_the_time_of_ones_own_tree_is_not_that_of_others(proc):
    proc.machine(user=1000, idle=1000)
    proc.process(10, 1, user=100)
    proc.process(11, 10, user=50)  # a subject
    proc.process(12, 11, user=0)  # its compiler
    proc.process(20, 1, user=500)  # somebody else's
    before = read(10)
    proc.machine(user=1150, idle=1050)  # 200 ticks, of which 150 busy: 10 + 60 + 75 are of the tree, 5 of another
    proc.process(10, 1, user=105, system=5)
    proc.process(11, 10, user=110)
    proc.process(12, 11, user=75)
    proc.process(20, 1, user=505)
    assert share_of_others(before, read(10)) == pytest.approx(5 / 200)


def test_a_process_that_ended_has_left_its_time_to_its_parent(proc):
    proc.process(10, 1, user=0)
    proc.process(11, 10, user=30)
    before = read(10)
    proc.end(11)
    proc.process(10, 1, user=0, children=(100, 20))
    proc.machine(user=100, idle=100)
    assert share_of_others(before, read(10)) == pytest.approx(10 / 200)  # of the 120, 90 are since the first reading


@pytest.mark.parametrize("kind", ["user", "nice", "system", "irq", "softirq", "steal"])
def test_every_kind_of_work_of_others_counts(proc, kind):
    proc.process(10, 1, user=0)
    before = read(10)
    proc.machine(**{"user": 0, kind: 8}, idle=180, iowait=12)
    assert share_of_others(before, read(10)) == pytest.approx(8 / 200)


def test_time_of_guests_is_not_counted_twice_and_no_time_is_no_share(proc):
    proc.process(10, 1, user=0)
    before = read(10)
    assert share_of_others(before, read(10)) == 0
    proc.machine(user=50, guest=50, idle=150)
    assert share_of_others(before, read(10)) == pytest.approx(50 / 200)
    proc.process(10, 1, user=51)  # the kernel rounds the times of processes and of the machine separately
    assert share_of_others(before, read(10)) == 0


@pytest.fixture
def load(monkeypatch):
    """The shares of others in coming repetitions."""
    shares = []
    monkeypatch.setattr("benchmarks.measuring.quiet.share_of_others", lambda before, after: shares.pop(0))
    return shares


def test_a_disturbed_repetition_is_made_again_until_one_is_quiet(load):
    numbers, quietly = iter(range(10)), Quietly()
    load += [0.5, QUIET, 0.0]
    assert [quietly(lambda: next(numbers)) for _ in range(2)] == [1, 2]
    assert str(quietly) == "33% of 3 repetitions discarded"


def test_a_machine_that_does_not_become_quiet_is_reported(load):
    numbers, quietly = iter(range(10)), Quietly()
    load += [0.5] * ATTEMPTS + [0.0]
    assert [quietly(lambda: next(numbers)) for _ in range(2)] == [ATTEMPTS - 1, ATTEMPTS]
    assert str(quietly) == (
        "50% of 4 repetitions discarded; the machine was not quiet in 1 others, so judge nothing by these times"
    )


class Turn:
    """A process that answers with the next of the given shares of others."""

    number = 0.5

    def __init__(self, subject, shares):
        self.subject, self.shares = subject, iter(shares)

    def repeat(self):
        return {"seconds": 1.0, "stepping_mib": 1.0, "process_mib": 2.0, "others": next(self.shares)}


def take_turns(ours, torch, repetitions, deadline=float("inf")):
    return comparison._take_turns(Turn(OURS, ours), Turn(TORCH, torch), repetitions, deadline)


def test_turns_are_taken_until_enough_are_quiet_on_both_sides():
    noisy = QUIET + 0.001
    measurement = take_turns([0, noisy, 0, QUIET], [0, 0, noisy, 0], 2)
    assert measurement.others == [0, noisy, noisy, QUIET]
    assert measurement.is_quiet == [True, False, False, True]
    assert measurement.discarded == 0.5
    assert len(measurement.quiet_seconds()[OURS]) == len(measurement.quiet_seconds()[TORCH]) == 2


def test_turns_end_where_the_machine_does_not_become_quiet_or_time_is_up():
    loud = take_turns([1.0] * 100, [1.0] * 100, 4)
    assert len(loud.others) == 12
    assert loud.discarded == 1
    assert len(take_turns([0.0] * 100, [0.0] * 100, 4, deadline=0.0).others) == 1


def test_a_measurement_without_repetitions_has_discarded_none():
    assert Measurement({}, {}, {}, [], None, {}).discarded == 0


@pytest.mark.parametrize(("name", "checks"), [("train28", []), ("sample32", [OURS, TORCH])])
def test_a_row_is_measured_with_the_settings_that_were_found(monkeypatch, name, checks):
    started = []

    @contextlib.contextmanager
    def start(subject, name, folder, check=False, settings=None):
        started.append((subject, check, settings))
        yield Turn(subject, [0.0] * 9)

    fastest = TorchSettings(threads=2, compiled=True)
    monkeypatch.setattr(comparison, "started", start)
    monkeypatch.setattr(comparison, "find_settings", lambda name, folder: (fastest, {"2 threads": 3.0}))
    measurement = comparison.measure(name, 2, plain=True)
    assert [subject for subject, check, _ in started if check] == checks
    assert {settings for subject, _, settings in started if subject == TORCH} == {fastest}
    assert measurement.seconds == {OURS: [1.0, 1.0], TORCH: [ROWS[name].extrapolation] * 2}
    assert (measurement.torch, measurement.trials) == (fastest, {"2 threads": 3.0})
    assert measurement.plain_seconds == (1.0 if name == "train28" else None)


class Torch:
    """A process of PyTorch that takes the time of its settings."""

    closed = 0

    def __init__(self, seconds):
        self.seconds = seconds

    def repeat(self):
        return {"seconds": self.seconds}

    def close(self):
        Torch.closed += 1


def test_each_setting_of_torch_is_tried_on_top_of_those_that_helped(monkeypatch):
    @contextlib.contextmanager
    def start(subject, name, folder, positions, settings):
        if settings.wait_policy == "ACTIVE":
            raise UserError("it does not start")
        gains = {"channels_last": 0.5, "fused": 1.0, "compiled": 0.8}
        seconds = [gain for key, gain in gains.items() if getattr(settings, key)]
        yield Torch(math.prod(seconds) * (1.2 if settings.wait_policy else 1.0) * (2 / settings.threads))

    monkeypatch.setattr(torch_trials, "started", start)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    best, trials = torch_trials.find_settings("train28", None)
    assert best == TorchSettings(threads=2, channels_last=True, compiled=True)
    assert trials == {
        "2 threads": 1.0,
        "2 threads, channels-last": 0.5,
        "2 threads, channels-last, fused Adam": 0.5,
        "2 threads, channels-last, torch.compile": 0.4,
        "2 threads, channels-last, torch.compile, huge pages": 0.4,
        "2 threads, channels-last, torch.compile, OMP_WAIT_POLICY=ACTIVE": None,
        "2 threads, channels-last, torch.compile, OMP_WAIT_POLICY=PASSIVE": 0.48,
        "1 thread, channels-last, torch.compile": 0.8,
    }
    assert Torch.closed == 6  # the slower of each pair
