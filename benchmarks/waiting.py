"""What a user waits for: CPU time and wall time of commands, from their start to what the user wants to see.

    python -m benchmarks.waiting                                                    # ten minutes on two cores
    python -m benchmarks.waiting --rows=help,sample --runs=5 --json=waiting.json
    python -m benchmarks.waiting --checkout=../earlier --json=before.json           # another version of the project
    python -m benchmarks.waiting --show=before.json,waiting.json                    # side by side; measures nothing

CPU time is that of the command with all its processes, in user mode and in the kernel; it hardly depends on other work
on the machine. Wall time does, so a command is run again if other processes disturbed it. The rows `first` and
`quickstart` find no compiled programs, all others those of an earlier start. The run that is sampled from and started
again is the quickstart with 60 steps per stage, or that of --run: it was evaluated and sampled from, so that nothing is
left to do. Data sets are prepared before all rows but their own. Each command runs in the environment of this one.
"""

import argparse
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.command import (
    Parser,
    check_at_least,
    check_json,
    chosen,
    conditions,
    print_header,
    print_line,
    stored,
)
from benchmarks.measuring.quiet import Quietly
from hvq_jax.command import exit_status
from hvq_jax.commands import NAMES
from hvq_jax.errors import UserError
from hvq_jax.files import write_json

_ROOT = Path(__file__).parents[1]
_QUICKSTART = "--config=configs/quickstart.py"
_SHORT = ("--config.autoencoder.num_steps=60", "--config.prior.num_steps=60")
_FIRST_STEP = "autoencoder step 1/"
_PREPARE_MINI = "import sys, hvq_jax as hvq; hvq.load_dataset('fashion_mnist_mini', data_dir=sys.argv[1])"
_PREPARE = "import sys, hvq_jax as hvq; hvq.load_dataset('fashion_mnist', data_dir=sys.argv[1], manual_dir=sys.argv[2])"


@dataclasses.dataclass(frozen=True)
class Times:
    """Of one command, in seconds."""

    cpu: float
    wall: float


@dataclasses.dataclass(frozen=True)
class Place:
    """Where commands run: a checkout, and a folder for what they write, with a finished run in `run`."""

    checkout: Path
    folder: Path
    manual_dir: str

    @property
    def run(self) -> Path:
        """The finished run."""
        return self.folder / "run"

    def time(self, arguments: Sequence[str], *, cache: str = "cache", until: str | None = None) -> Times:
        """Run Python with these arguments to its end, or until it prints a line that starts with `until`.

        Raises UserError if it fails, or ends without that line.
        """
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / cache)}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        start = time.perf_counter()
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.checkout,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            assert process.stdout is not None
            with process.stdout as lines:
                seen = any(until is not None and line.startswith(until) for line in lines)
                wall = time.perf_counter() - start
                if seen:
                    process.kill()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if seen != (until is not None) or (until is None and process.returncode):
                log.seek(0)
                raise UserError(f"{' '.join(arguments)} failed: {(log.read().splitlines() or ['no output'])[-1]}")
        return Times(usage.ru_utime + usage.ru_stime, wall)

    def train(self, workdir: Path, *arguments: str) -> list[str]:
        """Return the arguments of the quickstart in `workdir`."""
        return ["train.py", _QUICKSTART, f"--workdir={workdir}", f"--config.data.data_dir={self.data_dir}", *arguments]

    @property
    def data_dir(self) -> Path:
        """The folder of prepared data sets."""
        return self.folder / "data"

    def new_folder(self) -> Path:
        """Return a new, empty folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))


def _help(place: Place) -> Times:
    names = [name for name in NAMES if (place.checkout / f"{name}.py").exists()]
    times = [place.time([f"{name}.py", "--help"]) for name in names]
    return Times(statistics.mean(t.cpu for t in times), statistics.mean(t.wall for t in times))


def _first_step(place: Place, cache: str) -> Times:
    arguments = place.train(place.new_folder(), "--config.stage=autoencoder", "--config.autoencoder.log_every_steps=1")
    return place.time(arguments, cache=cache, until=_FIRST_STEP)


def _first_step_uncompiled(place: Place) -> Times:
    return _first_step(place, place.new_folder().name)


def _first_step_again(place: Place) -> Times:
    return _first_step(place, "cache")


def _finished(place: Place) -> Times:
    return place.time(["train.py", f"--workdir={place.run}"])


def _sample(place: Place) -> Times:
    return place.time(["sample.py", f"--workdir={place.run}", f"--out={place.folder / 'grid.png'}"])


def _prepare(place: Place) -> Times:
    return place.time(["-c", _PREPARE, str(place.new_folder()), place.manual_dir])


def _quickstart(place: Place) -> Times:
    workdir, cache = place.new_folder(), place.new_folder().name
    commands = place.train(workdir), ["report.py", f"--workdir={workdir}"]
    times = [place.time(command, cache=cache) for command in commands]
    return Times(sum(t.cpu for t in times), sum(t.wall for t in times))


@dataclasses.dataclass(frozen=True)
class Row:
    """A command that is timed."""

    title: str
    command: str
    time: Callable[[Place], Times]
    is_warmed: bool = True  # run once before it is timed, so that its compiled programs are there
    needs: str | None = None  # what is made before: "data", the quickstart's; "run", a finished one


ROWS = {
    "help": Row("the help text, mean of all commands", "python train.py --help", _help, is_warmed=False),
    "first": Row(
        "the quickstart to its first step, nothing compiled yet",
        f"python train.py {_QUICKSTART}",
        _first_step_uncompiled,
        is_warmed=False,
        needs="data",
    ),
    "again": Row(
        "the quickstart to its first step, compiled by an earlier start",
        f"python train.py {_QUICKSTART}",
        _first_step_again,
        needs="data",
    ),
    "finished": Row("a finished run, started again", "python train.py --workdir=RUN", _finished, needs="run"),
    "sample": Row("64 images as a grid", "python sample.py --workdir=RUN --out=grid.png", _sample, needs="run"),
    "prepare": Row(
        "preparing Fashion-MNIST from its four files",
        "hvq.load_dataset('fashion_mnist', manual_dir=DIR)",
        _prepare,
        is_warmed=False,
    ),
    "quickstart": Row(
        "the whole quickstart, nothing compiled yet", "make quickstart", _quickstart, is_warmed=False, needs="data"
    ),
}
HEADER = ["", "command", "CPU s", "(min–max)", "wall s", "(min–max)"]


def make_what_is_needed(names: Sequence[str], place: Place, run: Path | None) -> None:
    """Prepare the data set of these rows, and train a short run or copy `run`, before anything is timed."""
    needed = {ROWS[name].needs for name in names}
    if "data" in needed:
        place.time(["-c", _PREPARE_MINI, str(place.data_dir)])
    if "run" in needed and run is None:
        place.time(place.train(place.run, *_SHORT))
    elif "run" in needed and run is not None:
        shutil.copytree(run, place.run)


def measure(name: str, place: Place, runs: int, quietly: Quietly) -> dict[str, Any]:
    """Return a row of the JSON file."""
    row = ROWS[name]
    if row.is_warmed:
        row.time(place)
    times = [quietly(lambda: row.time(place)) for _ in range(runs)]
    return {
        "row": name,
        "title": row.title,
        "command": row.command,
        "cpu": [each.cpu for each in times],
        "wall": [each.wall for each in times],
    }


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table, from one of the JSON file."""
    return [row["title"], f"`{row['command']}`", *_in_words(row["cpu"]), *_in_words(row["wall"])]


def compared_cells(before: dict[str, Any] | None, after: dict[str, Any]) -> list[str]:
    """Return a row of the table of two files: CPU time before and after, their ratio, and the later wall time.

    `before` is None where the earlier file lacks the row.
    """
    cpu, wall = (" ".join(_in_words(after[clock])).strip() for clock in ("cpu", "wall"))
    if before is None:
        return [after["title"], f"`{after['command']}`", "", cpu, "", wall]
    ratio = statistics.median(after["cpu"]) / statistics.median(before["cpu"])
    earlier = " ".join(_in_words(before["cpu"])).strip()
    return [after["title"], f"`{after['command']}`", earlier, cpu, f"{ratio:.2f}", wall]


def _in_words(seconds: list[float]) -> tuple[str, str]:
    """Return the median, and the range where there are several."""
    digits = 2 if max(seconds) < 1 else 1
    spread = f"({min(seconds):.{digits}f}–{max(seconds):.{digits}f})" if len(seconds) > 1 else ""
    return f"{statistics.median(seconds):.{digits}f}", spread


def table(reports: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return header and rows of the table of one report, or of an earlier and a later one."""
    if len(reports) == 1:
        return [HEADER, *map(cells, reports[0]["rows"])]
    before = {row["row"]: row for row in reports[0]["rows"]}
    return [
        ["", "command", "CPU s before (min–max)", "after", "ratio", "wall s after"],
        *(compared_cells(before.get(row["row"]), row) for row in reports[1]["rows"]),
    ]


def stored_reports(paths: str) -> list[dict[str, Any]]:
    """Return the contents of one or two files of --json; raise UserError if they are none."""
    reports = [stored(path, "benchmarks.waiting") for path in paths.split(",")]
    if len(reports) > 2:
        raise UserError(f"--show={paths}: give one file, or an earlier and a later one")
    return reports


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--rows", default=",".join(ROWS), help="default %(default)s")
    parser.add_argument("--runs", type=int, default=3, help="runs of each command, default %(default)s")
    parser.add_argument("--run", type=Path, help="a finished run to copy, in place of a short quickstart")
    parser.add_argument("--checkout", type=Path, default=_ROOT, help="default: this one")
    parser.add_argument(
        "--manual_dir", default="/usr/share/datasets/fashion-mnist", help="Fashion-MNIST's files, default %(default)s"
    )
    parser.add_argument("--json", metavar="FILE", help="also write all numbers to this file, after each row")
    parser.add_argument("--show", metavar="FILE[,FILE]", help="print the table of stored results, and measure nothing")
    options = parser.parse_args(arguments)
    options.rows = chosen("--rows", options.rows, "row", ROWS)
    check_at_least(options, runs=1)
    check_json(options.json)
    if not (options.checkout / "train.py").exists():
        raise UserError(f"--checkout={options.checkout}: there is no train.py")
    if options.run is not None and not (options.run / "summary.json").exists():
        raise UserError(f"--run={options.run}: there is no finished run")
    return options


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    options = parse(arguments)
    if options.show:
        header, *rows = table(reports := stored_reports(options.show))
        print_header(header)
        for row in rows:
            print_line(row)
        print("", *(report["conditions"] for report in reports), sep="\n")
        return
    quietly = Quietly()
    report: dict[str, Any] = {"rows": []}
    with tempfile.TemporaryDirectory(prefix="hvq_jax_waiting_") as folder:
        place = Place(options.checkout, Path(folder), options.manual_dir)
        make_what_is_needed(options.rows, place, options.run)
        print_header(HEADER)
        for name in options.rows:
            report["rows"].append(measure(name, place, options.runs, quietly))
            report["conditions"] = f"{conditions(('jax',), options.runs)}; {quietly}"
            print_line(cells(report["rows"][-1]))
            if options.json:
                write_json(Path(options.json), report)
    print(f"\n{report['conditions']}")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
