"""Sampling time of transformers relative to the cached PixelCNN, with equal numbers of parameters.

    python -m benchmarks.networks                                                       # a minute on two cores
    python -m benchmarks.networks --grid=16 --batch=16

The PixelCNN is the default one. A transformer of each width has the number of layers that brings its number of
parameters closest. Both draw class-conditional grids of codes in compiled loops and take turns; a ratio is the
median over the turns that other processes did not disturb.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measuring.command import Parser, check_at_least, check_json, conditions
from benchmarks.measuring.quiet import SHORTEST, Quietly
from benchmarks.measuring.table import Table
from benchmarks.measuring.timing import calls_that_fill, measure_seconds
from hvq_jax.command import exit_status
from hvq_jax.devices import huge_pages
from hvq_jax.devices.xla import set_cpu_options

WIDTHS = (128, 192, 256)  # of transformers
_NUM_CODES, _NUM_CLASSES, _NUM_HEADS = 512, 10, 4


def pixelcnn() -> Any:
    """Return the default prior over codes alone."""
    from hvq_jax.priors.pixelcnn import PixelCNN
    from hvq_jax.priors.prior import Prior

    return Prior(_NUM_CODES, PixelCNN(num_classes=_NUM_CLASSES))


def transformer(grid: int, width: int, num_layers: int) -> Any:
    """Return a prior with the same heads and a transformer."""
    from hvq_jax.priors.prior import Prior
    from hvq_jax.priors.transformer import Transformer

    return Prior(_NUM_CODES, Transformer((grid, grid), _NUM_CLASSES, width, num_layers, _NUM_HEADS))


def num_parameters(model: Any, grid: int) -> int:
    """Return the number of parameters of a prior."""
    import jax

    params = jax.eval_shape(model.init, jax.random.key(0), *_arguments(1, grid))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def transformer_like(parameters: int, grid: int, width: int) -> Any:
    """Return the transformer of this width whose number of parameters is closest."""
    one, two = (num_parameters(transformer(grid, width, layers), grid) for layers in (1, 2))
    return transformer(grid, width, max(1, 1 + round((parameters - one) / (two - one))))


def make_sampler(model: Any, batch: int, grid: int) -> Callable[[], Any]:
    """Return a compiled function that draws `batch` grids."""
    import jax

    from benchmarks.workloads.ours import sampler

    tokens, labels = _arguments(batch, grid)
    return sampler(model, jax.jit(model.init)(jax.random.key(0), tokens, labels), labels, grid, grid)


def _arguments(batch: int, grid: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((batch, grid, grid, 1), np.int32), np.arange(batch, dtype=np.int32) % _NUM_CLASSES


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=8, help="side of a grid, default %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="grids drawn together, default %(default)s")
    parser.add_argument("--repetitions", type=int, default=7, help="turns, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args(arguments)
    check_at_least(options, grid=1, batch=1, repetitions=1)
    check_json(options.json)
    set_cpu_options()

    like = num_parameters(pixelcnn(), options.grid)
    models = [pixelcnn(), *(transformer_like(like, options.grid, width) for width in WIDTHS)]
    samplers = [make_sampler(model, options.batch, options.grid) for model in models]
    for sampler in samplers:
        sampler()  # compiles
    calls = [calls_that_fill(SHORTEST, sampler) for sampler in samplers]
    quietly = Quietly()

    def turn() -> list[float]:
        return [measure_seconds(sampler, number) for sampler, number in zip(samplers, calls, strict=True)]

    turns = [quietly(turn) for _ in range(options.repetitions)]
    table = Table(["network", "width", "layers", "parameters", "sampling", "relative to the PixelCNN"])
    for number, model in enumerate(models):
        name, network = type(model.network).__name__, model.network
        seconds = statistics.median(turn[number] for turn in turns)
        ratio = statistics.median(turn[number] / turn[0] for turn in turns)
        size = [str(network.width), str(network.num_layers), f"{num_parameters(model, options.grid):,}"]
        table.add([name, *size, f"{1e3 * seconds:,.0f} ms", f"{ratio:.2f}"])
    work = f"{options.batch} grids of {options.grid}×{options.grid}, {_NUM_CODES} codes"
    table.end(f"{work}; {conditions(['jax', 'flax', 'numpy'], options.repetitions)}; {quietly}", options.json)


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
