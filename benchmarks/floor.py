"""How far sampling is from its arithmetic floor: the network's products, each computed once per position.

    python -m benchmarks.floor                                                          # half a minute on two cores
    python -m benchmarks.floor --grid=32 --batch=16

Cached sampling multiplies every feature by every kernel entry that can see it, once. The floor is the time of these
multiplications and additions at the rate of one large matrix product. Sampling takes longer because products with few
rows are slower (one row of positions at a time in the vertical stack, one position at a time elsewhere), and because of
gates, copies, draws, and the overhead of about twenty operations per layer and position.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.measuring.command import Parser, check_at_least, conditions, print_header, print_line
from benchmarks.measuring.timing import calls_that_fill, measure_seconds
from hvq_jax.command import exit_status
from hvq_jax.devices.xla import set_cpu_options

LARGE = 2048  # side of the matrices in the product that defines the machine's rate
SHORTEST = 0.2  # seconds per timing


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


def measure_large_product() -> float:
    """Return the time of one compiled matrix product."""
    import jax

    matrix = jax.device_put(np.ones((LARGE, LARGE), np.float32))
    product = jax.jit(lambda a, b: a @ b)

    def call() -> Any:
        return jax.block_until_ready(product(matrix, matrix))

    call()
    return measure_seconds(call, calls_that_fill(SHORTEST, call))


def measure_sampling(model: Any, batch: int, height: int, width: int) -> float:
    """Return the time of drawing `batch` class-conditional grids."""
    import jax

    from benchmarks.workloads.ours import sampler

    labels = np.arange(batch, dtype=np.int32) % model.num_classes
    tokens = np.zeros((batch, height, width, 1), np.int32)
    call = sampler(model, jax.jit(model.init)(jax.random.key(0), tokens, labels), labels, height, width)
    call()
    return measure_seconds(call, calls_that_fill(3 * SHORTEST, call))


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=7, help="side of a grid, default %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="grids drawn together, default %(default)s")
    options = parser.parse_args(arguments)
    check_at_least(options, grid=1, batch=1)
    set_cpu_options()
    from hvq_jax.priors.pixelcnn import PixelCNN
    from hvq_jax.priors.prior import Prior

    model = Prior(512, PixelCNN(num_classes=10))
    sizes = (options.batch, options.grid, options.grid)
    flop = sum(product.flop for product in products(model, *sizes))
    rate = 2 * LARGE**3 / measure_large_product()
    taken, floor = measure_sampling(model, *sizes), flop / rate
    print_header(["grids", "GFLOP", "floor", "sampling", "sampling / floor"])
    name = f"{options.batch} of {options.grid}×{options.grid}"
    print_line([name, f"{flop / 1e9:.1f}", f"{1e3 * floor:,.0f} ms", f"{1e3 * taken:,.0f} ms", f"{taken / floor:.1f}"])
    print(f"\na product of {LARGE}×{LARGE} matrices: {rate / 1e9:.0f} GFLOP/s")
    print(conditions(["jax", "flax", "numpy"], 1))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
