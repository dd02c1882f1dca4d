"""Evaluate the samples of one run at several temperatures, top-p and guidance, as in `evaluate`.

    python -m studies.samples.sweep --manual_dir=/usr/share/datasets/fashion-mnist --runs=runs/samples \\
        --cell=frequency-default-pixelcnn-seed_0

--cell is a folder of --runs. Writes `studies/samples/results/sweep-CELL.json` after each setting; run it again to
resume.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from hvq_jax.command import exit_status
from hvq_jax.data.datasets import load_dataset
from hvq_jax.files import read_json
from hvq_jax.priors.sampling import SamplingOptions
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.logging import set_quiet
from studies import find_results
from studies.comparison import common_place, name_place
from studies.samples import evaluate
from studies.samples.evaluate import Judge, SampleMetrics, make_judge, whole, write

# One option at a time; the others have their defaults.
_OF_CODES: tuple[dict[str, float], ...] = (
    {},
    {"temperature": 0.9},
    {"temperature": 0.8},
    {"top_p": 0.95},
    {"guidance": 0.5},
)
_OF_CONTINUOUS: tuple[dict[str, float], ...] = (
    {"continuous_temperature": 0.7},
    {"continuous_temperature": 0.4},
    {"continuous_temperature": 0.0},
)


class Point(SampleMetrics):
    """The options of one setting, and the metrics of its samples."""

    options: dict[str, float]


class Sweep(TypedDict):
    """The content of sweep-NAME.json."""

    points: list[Point]
    devices: str
    jax: str


def read_sweep(path: Path) -> dict[str, Any]:
    """Return the settings of a sweep that are evaluated so far, and where; raise UserError if the file is damaged."""
    return dict(read_json(path, Sweep, advice="delete it, and sweep again") or {"points": [], **name_place()})


def swept(run: TrainedRun, judge: Judge, name: str) -> list[dict[str, Any]]:
    """Return the options and metrics of each setting; write them after each."""
    labels = np.arange(evaluate.COUNT, dtype=np.int32) % len(run.class_names)
    settings = (*_OF_CODES, *_OF_CONTINUOUS) if run.prior.heads else _OF_CODES
    before = read_sweep(find_results("samples") / f"sweep-{name}.json")
    common_place([before, name_place()])
    points: list[dict[str, Any]] = before["points"]
    done = [point["options"] for point in points]
    for setting in (setting for setting in settings if setting not in done):
        images, _ = whole(run.sample(labels, options=SamplingOptions(**setting)))  # type: ignore[arg-type]
        points.append({"options": setting, **judge.samples(images, labels)})
        print(points[-1], flush=True)
        write(f"sweep-{name}", {"points": points, **name_place()})
    return points


def main(arguments: list[str]) -> None:
    """Sweep one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual_dir", required=True, help="the published files of Fashion-MNIST")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--cell", required=True, help="the run's folder in --runs")
    options = parser.parse_args(arguments)
    set_quiet()
    run = TrainedRun.load(options.runs / options.cell)
    dataset = load_dataset("fashion_mnist", manual_dir=options.manual_dir, data_dir=options.runs / "data")
    judge, _ = make_judge(dataset, options.runs / "classifier.npz")
    swept(run, judge, options.cell)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
