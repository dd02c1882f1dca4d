"""The share of a training step spent outside the compiled computation: the training loop compared with its step alone.

    python -m benchmarks.overhead                                                        # a minute on two cores
    python -m benchmarks.overhead --config=fashion_mnist --steps=200 --rounds=10

The loop trains the autoencoder on random images and does everything that happens between evaluations: shuffling
batches, transfers, and writing logs and events to disk. The step alone is the same step, called repeatedly with one
batch that is on the device. The two take turns, so that other load on the machine affects both. The loop's first
logging interval, in which it compiles, and its last one, which waits for the end, are not counted.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from benchmarks.measuring.command import Parser, check_at_least, check_json, chosen, conditions
from benchmarks.measuring.quiet import Quietly
from benchmarks.measuring.table import Table
from benchmarks.measuring.timing import measure_seconds
from hvq_jax.command import exit_status
from hvq_jax.devices import huge_pages
from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options

CONFIGS = {"quickstart": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


class Subjects:
    """The loop and the step alone for one config; each call returns milliseconds per step."""

    def __init__(self, config: ConfigDict, shape: tuple[int, int, int], steps: int, folder: Path):
        # Imported here because the options must be set before JAX is imported.
        from benchmarks.workloads.training_step import TrainingStep
        from hvq_jax.data.datasets import Split
        from hvq_jax.data.pipeline import Batch
        from hvq_jax.runs.options import from_dict
        from hvq_jax.training.autoencoder_stage import AutoencoderStage

        self.log_every = config.autoencoder.log_every_steps
        config.autoencoder.update(num_steps=steps, eval_every_steps=steps)
        run_options = from_dict(config)
        self._options = run_options.autoencoder
        images = np.random.default_rng(0).integers(0, 256, (20 * self._options.batch_size, *shape), np.uint8)
        self._split = Split(images, np.zeros(len(images), np.int32))
        self._few = Split(images[:1], self._split.labels[:1])
        self._stage = AutoencoderStage(run_options.autoencoder_model(shape), images[:1])
        of_batch = slice(self._options.batch_size)
        batch = Batch(images[of_batch], self._split.labels[of_batch], np.ones(self._options.batch_size, bool))
        self._step = TrainingStep(self._stage, self._options, batch)
        self._workdirs = (folder / str(i) for i in itertools.count())

    def loop(self) -> float:
        """Train in a new folder and return milliseconds per step."""
        from hvq_jax.devices.parallel import Parallel
        from hvq_jax.devices.preemption import Preemption
        from hvq_jax.training.logging import read_records
        from hvq_jax.training.loop import RunContext, fit

        workdir = next(self._workdirs)
        workdir.mkdir()
        run = RunContext(workdir, seed=0, parallel=Parallel("pmap"), preemption=Preemption())
        with contextlib.redirect_stdout(io.StringIO()):
            fit(self._stage, self._split, self._few, options=self._options, run=run)
        rates = [record["images_per_second"] for record in read_records(workdir) if record["split"] == "train"]
        return 1e3 * self._options.batch_size / statistics.harmonic_mean(rates[1:-1])

    def step(self) -> float:
        """Call the step as often as the loop's counted steps, and return milliseconds per step."""
        return 1e3 * measure_seconds(self._step, self._options.num_steps - 2 * self.log_every)


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="quickstart", help=f"one of {', '.join(CONFIGS)}; default %(default)s")
    parser.add_argument(
        "--steps",
        type=int,
        default=300,
        help="steps of each subject, at least four logging intervals, default %(default)s",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args(arguments)
    check_json(options.json)
    (name,) = chosen("--config", options.config, "config", CONFIGS)[:1]
    config = importlib.import_module(f"configs.{name}").get_config("projected")
    check_at_least(options, rounds=1, steps=4 * config.autoencoder.log_every_steps)
    set_cpu_options()
    keep_compiled_programs()
    with tempfile.TemporaryDirectory(prefix="hvq_jax_overhead_") as folder:
        subjects = Subjects(config, CONFIGS[name], options.steps, Path(folder))
        subjects.loop(), subjects.step()  # compiles
        quietly = Quietly()
        pairs = [quietly(lambda: (subjects.loop(), subjects.step())) for _ in range(options.rounds)]
    shares = sorted(1 - step / loop for loop, step in pairs)
    table = Table(["config", "step in the loop", "step alone", "outside, median (range)"])
    loop, step = (statistics.median(times) for times in zip(*pairs, strict=True))
    share = f"{statistics.median(shares):.1%} ({shares[0]:.1%} to {shares[-1]:.1%})"
    table.add([name, f"{loop:.2f} ms", f"{step:.2f} ms", share])
    table.end(f"{conditions(['jax', 'flax', 'numpy'], options.rounds)}; {quietly}", options.json)


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
