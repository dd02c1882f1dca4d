"""Speed and memory side by side with plain PyTorch, and with Flax as a newcomer would write it.

    python -m benchmarks.speed                                  # or make bench, which installs PyTorch first
    python -m benchmarks.speed --rows=train28,sample7 --repetitions=20 --json=speed.json

Every subject is a process of its own that stays alive; they take turns, a repetition each, so that whatever else the
machine does falls on all of them. A repetition is a call, or as many as fill half a second. The ratio is that of
neighbouring repetitions: median, smallest and largest. Peak memory is the whole process's largest resident set, with
interpreter, libraries and compilation.

Ours is what `train.py` and `sample.py` run: the step under pmap with the config `reference` and its state donated, the
batch on the device as uint8. The PyTorch side is in `benchmarks/peers`, with as many threads as there are cores; its
images are float already. Both JAX subjects get the XLA options of `hvq_jax.training.xla`.

Before anything is timed, all subjects of a row have to compute the same number from the same weights and batch: of a
training step its loss, of `encode` the distance to the codes, of `decode` the mean square of the images, and in place
of samples, which are random, the prior's loss.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib
import importlib.util
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from hvq_jax.errors import UserError, exit_status

_ROOT = Path(__file__).parents[1]
OURS, TORCH, PLAIN = "ours", "PyTorch", "plain Flax"
NUM_CODES, NUM_CLASSES = 512, 10
TOLERANCE = 1e-4  # relative, of the number that both sides compute
SHORTEST = 0.5  # seconds of a repetition, at the least
PAUSE = 0.05  # seconds between repetitions: threads of the one before may still be spinning
HEADER = [
    "work",
    "ours",
    "PyTorch",
    "plain Flax",
    "ours / PyTorch (min–max)",
    "peak memory: ours",
    "PyTorch",
    "plain Flax",
    "bar",
    "",
]

# A subject's call, and the number that must agree, from what the call returns.
Subject = tuple[Callable[[], Any], Callable[[Any], float]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of work, and how much of it."""

    title: str
    work: str  # train, encode or decode; train_prior or sample
    shape: tuple[int, ...]  # H, W, C of images; h, w of grids of codes
    batch: int
    bar: float  # the largest ratio to PyTorch that is good enough
    dim: int = 256
    peers: tuple[str, ...] = (TORCH,)
    torch_positions: int = 0  # PyTorch draws so many of the h·w positions, in proportion; 0: all

    @property
    def is_prior(self) -> bool:
        """Whether the work is the prior's."""
        return len(self.shape) == 2

    @property
    def extrapolation(self) -> float:
        """What PyTorch's time is multiplied by: its sampler takes the same time for every position."""
        return math.prod(self.shape) / self.torch_positions if self.torch_positions else 1.0


ROWS = {
    "train28": Row("training step, 28×28×1, D = 256, batch 128", "train", (28, 28, 1), 128, 1.0, peers=(TORCH, PLAIN)),
    "train32": Row("training step, 32×32×3, D = 64, batch 64", "train", (32, 32, 3), 64, 1.0, dim=64),
    "train32wide": Row("training step, 32×32×3, D = 128, batch 64", "train", (32, 32, 3), 64, 1.0, dim=128),
    "encode": Row("images to codes, 28×28×1, D = 256, batch 128", "encode", (28, 28, 1), 128, 1.0),
    "decode": Row("codes to images, 28×28×1, D = 256, batch 128", "decode", (28, 28, 1), 128, 1.0),
    "prior": Row("training step of the PixelCNN, 7×7, batch 128", "train_prior", (7, 7), 128, 1.0),
    "sample7": Row("64 samples of the PixelCNN, 7×7", "sample", (7, 7), 64, 1 / 40),
    "sample8": Row("64 samples of the PixelCNN, 8×8", "sample", (8, 8), 64, 1 / 40),
    "sample32": Row(
        "16 samples of the PixelCNN, 32×32 (PyTorch: 8 of the 1,024 positions, times 128)",
        "sample",
        (32, 32),
        16,
        1 / 300,
        torch_positions=8,
    ),
}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Of one row: seconds of every repetition, the whole work's, and peak memory, by subject."""

    seconds: dict[str, list[float]]
    peak_mib: dict[str, float]


# The table


def pairwise_ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the ratios of neighbouring repetitions."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def verdict(ratio: float, bar: float) -> str:
    """Whether the ratio is good enough."""
    return "met" if ratio <= bar else "MISSED"


def duration(seconds: float) -> str:
    """In ms below ten seconds."""
    return f"{1e3 * seconds:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def shown(ratio: float) -> str:
    """With two digits at least."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def cells(row: Row, measurement: Measurement) -> list[str]:
    """A row of the table."""
    median, smallest, largest = pairwise_ratio(measurement.seconds[OURS], measurement.seconds[TORCH])
    subjects = (OURS, TORCH, PLAIN)
    times = {name: duration(statistics.median(seconds)) for name, seconds in measurement.seconds.items()}
    memory = {name: f"{mib:,.0f} MiB" for name, mib in measurement.peak_mib.items()}
    return [
        row.title,
        *(times.get(name, "") for name in subjects),
        f"{shown(median)} ({shown(smallest)}–{shown(largest)})",
        *(memory.get(name, "") for name in subjects),
        f"≤ {row.bar:.3g}",
        verdict(median, row.bar),
    ]


def print_line(line: list[str]) -> None:
    """A line of a table in Markdown."""
    print(f"| {' | '.join(line)} |", flush=True)


def versions() -> dict[str, str]:
    """Of everything that is compared."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("jax", "flax", "torch", "numpy")}}


def conditions(repetitions: int) -> str:
    """One line on what was measured with."""
    names = ", ".join(f"{name} {number}" for name, number in versions().items())
    cores = len(os.sched_getaffinity(0))
    return f"{names}; {cores} cores; {repetitions} repetitions; {datetime.date.today().isoformat()}"


def record(name: str, row: Row, measurement: Measurement) -> dict[str, Any]:
    """A row of the JSON file."""
    median, smallest, largest = pairwise_ratio(measurement.seconds[OURS], measurement.seconds[TORCH])
    return {
        "row": name,
        "work": row.title,
        "bar": row.bar,
        "verdict": verdict(median, row.bar),
        "ratio": {"median": median, "min": smallest, "max": largest},
        **dataclasses.asdict(measurement),
    }


# Taking turns


class Process:
    """A subject in a process of its own, told over a pipe to do a repetition."""

    def __init__(self, subject: str, name: str, folder: Path, *, check: bool):
        self.subject = subject
        self._log: IO[str] = (folder / f"{subject}.log").open("w+")
        command = [sys.executable, "-m", "benchmarks.speed", f"--subject={subject}", f"--rows={name}"]
        self._process = subprocess.Popen(
            [*command, f"--folder={folder}", *(["--check"] if check else [])],
            cwd=_ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.number: float = self._answer()["number"]

    def repeat(self) -> tuple[float, float]:
        """Seconds of a call in one more repetition, and the process's peak memory in MiB."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["peak_mib"]

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            answer: dict[str, float] = json.loads(line)
            return answer
        self._log.seek(0)
        lines = self._log.read().split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        raise UserError(f"the process of {self.subject} ended with status {self._process.wait()}: {last}")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


@contextlib.contextmanager
def started(name: str, *, check: bool = False) -> Iterator[list[Process]]:
    """The processes of a row, which have found to compute the same; ours first, since it writes the weights."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        processes: list[Process] = []
        for subject in (OURS, *ROWS[name].peers):
            process = Process(subject, name, Path(folder), check=check)
            stack.callback(process.close)
            processes.append(process)
        require_agreement(name, {process.subject: process.number for process in processes})
        yield processes


def require_agreement(name: str, numbers: dict[str, float]) -> None:
    """Raises UserError unless all subjects of row `name` have computed the same number as PyTorch."""
    for subject, number in numbers.items():
        if not math.isclose(number, numbers[TORCH], rel_tol=TOLERANCE):
            raise UserError(
                f"{name}: {subject} computes {number:.7g} and PyTorch {numbers[TORCH]:.7g} from the same weights and "
                f"batch; they may differ by {TOLERANCE:g} of it, so there is nothing to compare"
            )


def measure(name: str, repetitions: int) -> Measurement:
    """All repetitions of a row."""
    if ROWS[name].work == "sample":
        with started(name, check=True):
            pass
    seconds: dict[str, list[float]] = {}
    peak_mib: dict[str, float] = {}
    with started(name) as processes:
        for _ in range(repetitions):
            for process in processes:
                time.sleep(PAUSE)
                taken, peak_mib[process.subject] = process.repeat()
                factor = ROWS[name].extrapolation if process.subject == TORCH else 1.0
                seconds.setdefault(process.subject, []).append(factor * taken)
    return Measurement(seconds, peak_mib)


# One subject, in its own process


def images_of(row: Row) -> np.ndarray:
    """A batch of noise, uint8: the time does not depend on what the images show."""
    return np.random.default_rng(0).integers(0, 256, (row.batch, *row.shape), np.uint8)


def indices_of(row: Row) -> np.ndarray:
    """A batch of grids of codes, int32."""
    height, width = row.shape if row.is_prior else (row.shape[0] // 4, row.shape[1] // 4)
    return np.random.default_rng(1).integers(0, NUM_CODES, (row.batch, height, width), np.int32)


def labels_of(row: Row) -> np.ndarray:
    """A class for each of the batch, int32."""
    return np.arange(row.batch, dtype=np.int32) % NUM_CLASSES


def serve(subject: Subject) -> None:
    """Answers every line on stdin with a repetition; the first answer is the number to compare."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    call, number = subject
    first = number(call())  # compiles
    calls = max(1, math.ceil(SHORTEST / seconds_of(call, 1)))
    # Only now, when this process has fallen silent: the others start upon it.
    print(json.dumps({"number": first}), file=answers, flush=True)
    for _ in sys.stdin:
        seconds = seconds_of(call, calls)
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "peak_mib": peak_kib / 1024}), file=answers, flush=True)


def seconds_of(call: Callable[[], Any], calls: int) -> float:
    """Seconds a call, the mean of so many."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def peer(name: str) -> Any:
    """A module of `benchmarks/peers`, imported only in the process that needs it."""
    return importlib.import_module(f"benchmarks.peers.{name}")


def torch_subject(row: Row, work: str, state_dict: dict[str, np.ndarray]) -> Subject:
    """PyTorch's side of a row."""
    subject: Subject
    if row.is_prior:
        positions = row.torch_positions or math.prod(row.shape)
        work = work.removesuffix("_prior")
        subject = peer("torch_pixelcnn").subject(work, state_dict, indices_of(row), labels_of(row), positions)
    else:
        subject = peer("torch_autoencoder").subject(work, state_dict, images_of(row), indices_of(row))
    return subject


def plain_flax_subject(row: Row, state_dict: dict[str, np.ndarray]) -> Subject:
    """The newcomer's side of a row."""
    from hvq_jax.interop import autoencoder_from_torch

    subject: Subject = peer("flax_plain").subject(autoencoder_from_torch(state_dict), images_of(row))
    return subject


def reference_config(row: Row) -> Any:
    """The config `reference`, with the row's sizes."""
    from configs import reference

    config = reference.get_config("vq")
    config.latent.dim, config.latent.num_codes = row.dim, NUM_CODES
    return config


def our_training_step(stage: Any, options: Any, batch: Any, save: Callable[[Any, Any], None]) -> Subject:
    """The step of `training.loop`, one a dispatch; `save` is given parameters and model state first."""
    import jax

    from hvq_jax.training.loop import initial_state, optimizer_of
    from hvq_jax.training.parallel import Parallel
    from hvq_jax.training.state import train_step

    parallel = Parallel("pmap")
    state = parallel.replicate(jax.jit(partial(initial_state, stage, options, 1000, 0))())
    save(state.params, state.model_state)
    optimizer = optimizer_of(options, 1000)
    step = partial(
        train_step,
        loss_function=stage.loss,
        optimizer=optimizer,
        seed=0,
        average_decay=options.average_decay,
        axis_name=parallel.axis_name,
    )
    compiled, sharded = parallel.compile(step, donate_state=True), parallel.shard(batch)

    def call() -> Any:
        nonlocal state
        state, report = compiled(state, sharded)
        return jax.block_until_ready(report)

    return call, lambda report: float(report.loss)


def our_autoencoder(row: Row, work: str, weights: Path) -> Subject:
    """Our side of a row of the autoencoder; writes the weights for the others."""
    import jax

    from hvq_jax import autoencoder
    from hvq_jax.assignment import nearest_codes
    from hvq_jax.autoencoder import Variables
    from hvq_jax.data.pipeline import Batch
    from hvq_jax.images import to_float
    from hvq_jax.interop import autoencoder_to_torch
    from hvq_jax.latents import latent_from_codes
    from hvq_jax.training.autoencoder_stage import autoencoder_stage
    from hvq_jax.training.config import autoencoder_of, fit_options_of

    config, images = reference_config(row), images_of(row)
    model = autoencoder_of(config, images.shape[1:])

    def save(params: Any, state: Any) -> None:
        state_dict: Any = autoencoder_to_torch({"params": params, "batch_stats": state.batch_stats})
        np.savez(weights, **state_dict)

    if work == "train":
        stage = autoencoder_stage(model, images[:1])
        batch = Batch(images, labels_of(row), np.ones(row.batch, bool))
        return our_training_step(stage, fit_options_of(config.autoencoder), batch, save)
    variables = jax.jit(partial(autoencoder.init, model))(jax.random.key(0))
    save(variables.params, variables.state)

    @jax.jit
    def encode(variables: Variables, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        z_e = autoencoder.encode(model, variables, to_float(images))
        return z_e, nearest_codes(z_e, variables.codes)

    @jax.jit
    def decode(variables: Variables, indices: jax.Array) -> jax.Array:
        return autoencoder.decode(model, variables, latent_from_codes(indices, variables.codes))

    def distance(result: tuple[jax.Array, jax.Array]) -> float:
        z_e, indices = (np.asarray(array) for array in result)
        return float(np.square(np.asarray(variables.codes)[indices] - z_e).mean())

    if work == "encode":
        images = jax.device_put(images)
        return lambda: jax.block_until_ready(encode(variables, images)), distance
    codes = jax.device_put(indices_of(row))
    return lambda: jax.block_until_ready(decode(variables, codes)), lambda x: float(np.square(x).mean())


def our_prior(row: Row, work: str, weights: Path) -> Subject:
    """Our side of a row of the prior; writes the weights for the others."""
    import jax

    from hvq_jax.data.pipeline import Batch
    from hvq_jax.interop import pixelcnn_to_torch
    from hvq_jax.priors.sampling import sample_cached
    from hvq_jax.training.config import fit_options_of, prior_of
    from hvq_jax.training.prior_stage import prior_stage

    config, (height, width) = reference_config(row), row.shape
    model = prior_of(config, NUM_CLASSES)
    stage = prior_stage(model, (height, width), 16 * height * width)
    batch = Batch(indices_of(row), labels_of(row), np.ones(row.batch, bool))

    def save(params: Any, _: Any = None) -> None:
        state_dict: Any = pixelcnn_to_torch(params)
        np.savez(weights, **state_dict)

    if work == "train_prior":
        return our_training_step(stage, fit_options_of(config.prior), batch, save)
    params, _ = jax.jit(stage.init)(jax.random.key(0))
    save(params)
    if work == "loss":
        loss = jax.jit(lambda params, batch: stage.loss(params, None, batch, jax.random.key(0), None)[0])
        return lambda: loss(params, batch), float
    labels, keys = jax.device_put(batch.labels), jax.random.split(jax.random.key(0), row.batch)
    draw = jax.jit(lambda params, labels, keys: sample_cached(model, params, labels, keys, height, width))
    return lambda: jax.block_until_ready(draw(params, labels, keys)), lambda result: 0.0


def be_subject(options: argparse.Namespace) -> None:
    """What a process of its own does."""
    from hvq_jax.training.xla import set_cpu_options

    row = ROWS[options.rows]
    work = "loss" if options.check else row.work
    weights = Path(options.folder) / "weights.npz"
    if options.subject != TORCH:
        set_cpu_options()
    if options.subject == OURS:
        serve((our_prior if row.is_prior else our_autoencoder)(row, work, weights))
        return
    with np.load(weights) as file:
        state_dict = dict(file)
    serve(torch_subject(row, work, state_dict) if options.subject == TORCH else plain_flax_subject(row, state_dict))


# The command line


class Parser(argparse.ArgumentParser):
    """One line for a mistake, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(message)


def chosen_rows(text: str) -> list[str]:
    """Names of rows, parted by commas, in the order of the table; UserError for one that there is not."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in ROWS:
            raise UserError(f"--rows={text}: there is no row {name!r}; choose from {', '.join(ROWS)}")
    return [name for name in ROWS if name in names]


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; UserError where they make no sense."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--rows", default=",".join(ROWS), help="default %(default)s")
    parser.add_argument("--repetitions", type=int, default=7, help="of each subject, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there too")
    parser.add_argument("--subject", help=argparse.SUPPRESS)  # what the processes are started with
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    chosen_rows(options.rows)
    if options.repetitions < 1:
        raise UserError(f"--repetitions={options.repetitions}: must be at least 1")
    if options.json and not os.access(Path(options.json).absolute().parent, os.W_OK):
        raise UserError(f"--json={options.json}: the folder does not exist or cannot be written to")
    return options


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    options = parse(arguments)
    if options.subject:
        be_subject(options)
        return
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: make bench, or pip install -r requirements-bench.txt")
    records = []
    for number, name in enumerate(chosen_rows(options.rows)):
        measurement = measure(name, options.repetitions)
        if number == 0:
            print_line(HEADER)
            print_line(["---"] * len(HEADER))
        print_line(cells(ROWS[name], measurement))
        records.append(record(name, ROWS[name], measurement))
    print(f"\n{conditions(options.repetitions)}")
    if options.json:
        report = {"versions": versions(), "conditions": conditions(options.repetitions), "rows": records}
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(partial(run, sys.argv[1:])))
