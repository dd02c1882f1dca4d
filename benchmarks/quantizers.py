"""Quantizers in the Fashion-MNIST example of vector-quantize-pytorch: reconstruction, codes used, time per step.

    pip install -r requirements-bench.txt
    python -m benchmarks.quantizers                                            # 1,000 steps, as in the example
    python -m benchmarks.quantizers --manual_dir=/usr/share/datasets/fashion-mnist --json=quantizers.json

The example (28×28 to 7×7, 256 codes of 32 numbers, batch 256, AdamW 3e-4, ten times the quantizer's loss, rotation
trick) is trained with its own quantizer, and with `hvq_jax.linen.HybridQuantizer` in the same network. With one seed,
all subjects start from the same convolutions and see the same batches in the same order. They take turns of 20 steps in
one process. The time is that of the processor, on all cores: the median of the turns that other processes did not
disturb, except for the first one, in which programs are compiled. The metrics are of the official test images: mean
absolute error (what the example trains) and mean squared error on [-1, 1], and the share of codes that any of them
uses.

Without --manual_dir, the 10,000 images in the package are split: 9,000 to train on, 1,000 to test. The file of --json
is written after each seed, and seeds that it has are not trained again.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np

from benchmarks.measuring.command import (
    Parser,
    check_at_least,
    check_json,
    conditions,
    print_header,
    print_line,
    versions,
)
from benchmarks.measuring.quiet import QUIET, read, share_of_others
from hvq_jax.command import exit_status
from hvq_jax.data.builders.idx import read_idx
from hvq_jax.devices import huge_pages
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError
from hvq_jax.files import read_json, write_json

set_cpu_options()  # before anything uses a device

PACKAGES = ("jax", "flax", "torch", "vector-quantize-pytorch", "numpy")
EXAMPLE: dict[str, Any] = {"dim": 32, "num_codes": 256, "learning_rate": 3e-4, "loss_weight": 10.0}
BATCH = 256
TURN = 20  # steps
_EMBEDDED = Path("hvq_jax/data/embedded/fashion_mnist_test")

THEIRS = "vector-quantize-pytorch, as in the example"
OURS: dict[str, dict[str, Any]] = {
    # As theirs: averages of 0.8, random start, no revival, commitment of weight 1.
    "ours, with its settings": {
        "mode": "vq", "estimator": "rotation", "decay": 0.8, "revive_below": 0.0, "codebook_init": "uniform",
        "commitment_weight": 1.0,
    },
    "ours, `vq`": {"mode": "vq", "estimator": "rotation"},
}  # fmt: skip
HEADER = [
    "quantizer",
    "mean absolute error",
    "mean squared error",
    "codes used",
    "ms of CPU time per step",
    "discarded",
]


class Trained(Protocol):
    """A training of the example."""

    def step(self, images: np.ndarray) -> None:
        """Take a step on images `[B, H, W, 1]` in [-1, 1]."""

    def reconstruct(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images after the network, and the indices."""


class Result(TypedDict):
    """One training."""

    quantizer: str
    seed: int
    absolute: float
    squared: float
    used: float  # share of codes
    seconds: list[float]  # of the processor, per step, of each turn but the first, if it was undisturbed
    discarded: float  # share of the turns


def subjects(seed: int) -> dict[str, Trained]:
    """Return the trainings with a seed, from the same convolutions."""
    from benchmarks.peers import torch_quantizer
    from benchmarks.workloads import quantizer_example

    theirs = torch_quantizer.Subject(seed, **EXAMPLE)
    convolutions = theirs.convolutions()
    ours = {name: quantizer_example.Subject(seed, convolutions, **EXAMPLE, **options) for name, options in OURS.items()}
    return {THEIRS: theirs, **ours}


def batches(images: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yield batches in a new order each epoch."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(images))
        for first in range(0, len(order) - BATCH + 1, BATCH):
            yield images[order[first : first + BATCH]]


class Report(TypedDict):
    """The content of the file of --json."""

    versions: dict[str, str]
    conditions: str
    steps: int
    images: int
    rows: list[Result]


def train(num_steps: int, seed: int, images: np.ndarray, test: np.ndarray) -> list[Result]:
    """Train all subjects in turns."""
    trained, stream = subjects(seed), batches(images, seed)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in trained}  # seconds, and share of others
    for first in range(0, num_steps, TURN):
        turn = [next(stream) for _ in range(min(TURN, num_steps - first))]
        for name, subject in trained.items():
            before, start = read(), time.process_time()
            for batch in turn:
                subject.step(batch)
            turns[name].append(((time.process_time() - start) / len(turn), share_of_others(before, read())))
    return [_evaluated(name, seed, subject, test, turns[name][1:]) for name, subject in trained.items()]


def _evaluated(name: str, seed: int, subject: Trained, test: np.ndarray, turns: list[tuple[float, float]]) -> Result:
    pieces = [test[first : first + 1000] for first in range(0, len(test), 1000)]
    decoded, indices = zip(*map(subject.reconstruct, pieces), strict=True)
    errors = np.concatenate(decoded) - test
    return {
        "quantizer": name,
        "seed": seed,
        "absolute": float(np.abs(errors).mean()),
        "squared": float(np.square(errors).mean()),
        "used": len(np.unique(np.concatenate(indices))) / EXAMPLE["num_codes"],
        "seconds": [seconds for seconds, others in turns if others <= QUIET],
        "discarded": sum(others > QUIET for _, others in turns) / max(len(turns), 1),
    }


def read_images(manual_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return images to train on and to test with, `[N, 28, 28, 1]` float32 in [-1, 1]."""

    def read(path: Path) -> np.ndarray:
        return (read_idx(path, (28, 28))[..., None] / 127.5 - 1).astype(np.float32)

    if manual_dir is None:
        images = read(_EMBEDDED / "t10k-images-idx3-ubyte.gz")
        return images[:9000], images[9000:]
    folder = Path(manual_dir)
    return read(folder / "train-images-idx3-ubyte.gz"), read(folder / "t10k-images-idx3-ubyte.gz")


def cells(name: str, results: list[Result]) -> list[str]:
    """Return a row of the table: means over seeds ± half the range, and the median time of a step."""

    def spread(values: list[float], digits: int) -> str:
        half = (max(values) - min(values)) / 2
        return f"{statistics.mean(values):.{digits}f} ± {half:.{digits}f}"

    seconds = [second for result in results for second in result["seconds"]]
    return [
        name,
        spread([result["absolute"] for result in results], 4),
        spread([result["squared"] for result in results], 4),
        f"{spread([100 * result['used'] for result in results], 1)} %",
        f"{1e3 * statistics.median(seconds):.0f}" if seconds else "",
        f"{statistics.mean(result['discarded'] for result in results):.0%}",
    ]


def rows(results: list[Result]) -> list[list[str]]:
    """Return the rows of the table, one per quantizer."""
    by_name = {name: [result for result in results if result["quantizer"] == name] for name in (THEIRS, *OURS)}
    return [cells(name, found) for name, found in by_name.items() if found]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--manual_dir", help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--steps", type=int, default=1000, help="default %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers to this file")
    options = parser.parse_args(arguments)
    check_at_least(options, steps=1, seeds=1)
    check_json(options.json)
    return options


def main(arguments: list[str]) -> None:
    """Train, and print a table."""
    options = parse(arguments)
    for name in ("torch", "vector_quantize_pytorch"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{name} is not installed: pip install -r requirements-bench.txt")
    images, test = read_images(options.manual_dir)
    results = _stored(options.json, options.steps, len(images))
    for seed in sorted({*range(options.seeds)} - {result["seed"] for result in results}):
        results += train(options.steps, seed, images, test)
        report: Report = {
            "versions": versions(PACKAGES),
            "conditions": conditions(PACKAGES, options.seeds),
            "steps": options.steps,
            "images": len(images),
            "rows": results,
        }
        if options.json:
            write_json(Path(options.json), report)
    print_header(HEADER)
    for row in rows(results):
        print_line(row)
    print(f"\n{options.steps:,} steps on {len(images):,} images; {conditions(PACKAGES, options.seeds)}")


def _stored(path: str | None, num_steps: int, num_images: int) -> list[Result]:
    """Return the results in the file; raise UserError if it is damaged or of another training."""
    stored = None if path is None else read_json(Path(path), Report, advice="choose another --json")
    if stored is None:
        return []
    if (stored["steps"], stored["images"]) != (num_steps, num_images):
        raise UserError(f"--json={path}: has {stored['steps']} steps on {stored['images']} images: choose another file")
    return stored["rows"]


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
