"""How far sampling is from its arithmetic floor: the network's products, each computed once per position.

    python -m benchmarks.floor                                                          # a minute on two cores
    python -m benchmarks.floor --grid=7,32 --batch=64,16 --json=floor.json

Cached sampling multiplies every feature by every kernel entry that can see it, once. The floor is the time of these
multiplications and additions at the rate of one large matrix product. Sampling takes longer because products with few
rows are slower (one row of positions at a time in the vertical stack, one position at a time elsewhere), and because of
gates, copies, draws, and the overhead of about twenty operations per layer and position.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.measuring.command import Parser, check_at_least, check_json, conditions, list_integers
from benchmarks.measuring.quiet import Quietly, median_seconds
from benchmarks.measuring.table import Table
from hvq_jax.command import exit_status
from hvq_jax.devices import huge_pages
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError

LARGE = 2048  # side of the matrices in the product that defines the machine's rate


@dataclasses.dataclass(frozen=True)
class Product:
    """A product [rows, inner] times [inner, outer], performed `times` times while all grids are drawn."""

    rows: int
    inner: int
    outer: int
    times: int

    @property
    def flop(self) -> int:
        """One multiplication and one addition per entry, over all times."""
        return 2 * self.rows * self.inner * self.outer * self.times


def products(model: Any, batch: int, height: int, width: int) -> Iterator[Product]:
    """Yield all matrix products of `sample` for a PixelCNN prior, without the entries that mask A hides."""
    features, positions = model.network.width, height * width
    for layer in range(model.network.num_layers):
        reach = 3 if layer == 0 else 1  # kernels of size 7 and 3
        seen = reach + (layer > 0)  # rows of the vertical kernel, columns of the horizontal one
        yield Product(batch * width, seen * (2 * reach + 1) * features, 2 * features, height)
        yield Product(batch * width, 2 * features, 2 * features, height)
        yield Product(batch, seen * features, 2 * features, positions)
        yield Product(batch, features, features, positions)
    yield Product(batch, features, model.head_width, positions)
    yield Product(batch, model.head_width, model.num_codes, positions)


def large_product() -> Callable[[], Any]:
    """Return one compiled matrix product, whose rate is the machine's."""
    import jax

    matrix = jax.device_put(np.ones((LARGE, LARGE), np.float32))
    product = jax.jit(lambda a, b: a @ b)

    return lambda: jax.block_until_ready(product(matrix, matrix))


def sampling(model: Any, batch: int, height: int, width: int) -> Callable[[], Any]:
    """Return the drawing of `batch` class-conditional grids."""
    import jax

    from benchmarks.workloads.ours import sampler

    labels = np.arange(batch, dtype=np.int32) % model.num_classes
    tokens = np.zeros((batch, height, width, 1), np.int32)
    return sampler(model, jax.jit(model.init)(jax.random.key(0), tokens, labels), labels, height, width)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", default="7,32", help="sides of grids, default %(default)s")
    parser.add_argument("--batch", default="64,16", help="grids drawn together, as many numbers, default %(default)s")
    parser.add_argument("--repetitions", type=int, default=7, help="default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args(arguments)
    options.grid, options.batch = (list_integers(f"--{name}", getattr(options, name)) for name in ("grid", "batch"))
    if len(options.grid) != len(options.batch):
        raise UserError(f"--batch has {len(options.batch)} numbers: give {len(options.grid)}, one per --grid")
    check_at_least(options, repetitions=1)
    check_json(options.json)
    return options


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    options = parse(arguments)
    set_cpu_options()
    from hvq_jax.priors.pixelcnn import PixelCNN
    from hvq_jax.priors.prior import Prior

    model = Prior(512, PixelCNN(num_classes=10))
    quietly = Quietly()
    rate = 2 * LARGE**3 / median_seconds(large_product(), options.repetitions, quietly)
    table = Table(["grids", "GFLOP", "floor", "sampling", "sampling / floor"])
    for grid, batch in zip(options.grid, options.batch, strict=True):
        sizes = (batch, grid, grid)
        flop = sum(product.flop for product in products(model, *sizes))
        taken, floor = median_seconds(sampling(model, *sizes), options.repetitions, quietly), flop / rate
        times = [f"{1e3 * floor:,.0f} ms", f"{1e3 * taken:,.0f} ms", f"{taken / floor:.1f}"]
        table.add([f"{batch} of {grid}×{grid}", f"{flop / 1e9:.1f}", *times])
    product = f"a product of {LARGE}×{LARGE} matrices: {rate / 1e9:.0f} GFLOP/s"
    table.end(f"{product}; {conditions(['jax', 'flax', 'numpy'], options.repetitions)}; {quietly}", options.json)


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
