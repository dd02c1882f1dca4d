"""How far sampling is from its arithmetic floor: the products of the network, each computed once a position.

    python -m benchmarks.floor                                                          # half a minute on two cores
    python -m benchmarks.floor --grid=32 --batch=16

Cached sampling multiplies every feature by every kernel entry that it can see, once. At the rate of one large matrix
product so many multiplications and additions take as long as the floor says. What is above it: products of few rows are
slower, a row of positions at a time in the vertical stack and one position at a time elsewhere; and there are gates,
copies, draws, and the start of about twenty operations a layer and position.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.command import Parser, conditions, print_header, print_line
from benchmarks.timing import calls_that_fill, seconds_of
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError, exit_status

LARGE = 2048  # sides of the product whose rate is the machine's
SHORTEST = 0.2  # seconds of one timing


@dataclasses.dataclass(frozen=True)
class Product:
    """[rows, inner] times [inner, outer], so many times while all grids are drawn."""

    rows: int
    inner: int
    outer: int
    times: int

    @property
    def flop(self) -> int:
        """A product and a sum for each entry, all times together."""
        return 2 * self.rows * self.inner * self.outer * self.times


def products(model: Any, batch: int, height: int, width: int) -> Iterator[Product]:
    """All matrix products of `sample` for the prior `model` by a PixelCNN; the first layer hides what mask A hides."""
    features, positions = model.network.width, height * width
    for layer in range(model.network.num_layers):
        reach = 3 if layer == 0 else 1  # kernels of 7 and of 3
        seen = reach + (layer > 0)  # rows of the vertical kernel, columns of the horizontal one
        yield Product(batch * width, seen * (2 * reach + 1) * features, 2 * features, height)
        yield Product(batch * width, 2 * features, 2 * features, height)
        yield Product(batch, seen * features, 2 * features, positions)
        yield Product(batch, features, features, positions)
    yield Product(batch, features, model.head_width, positions)
    yield Product(batch, model.head_width, model.num_codes, positions)


def seconds_of_large_product() -> float:
    """Of one matrix product, compiled."""
    import jax

    matrix = jax.device_put(np.ones((LARGE, LARGE), np.float32))
    product = jax.jit(lambda a, b: a @ b)

    def call() -> Any:
        return jax.block_until_ready(product(matrix, matrix))

    call()
    return seconds_of(call, calls_that_fill(SHORTEST, call))


def seconds_of_sampling(model: Any, batch: int, height: int, width: int) -> float:
    """Of drawing `batch` class-conditional grids."""
    import jax

    from hvq_jax.priors.sampling import sample

    labels = np.arange(batch, dtype=np.int32) % model.num_classes
    tokens = np.zeros((batch, height, width, 1), np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), tokens, labels)
    keys = jax.random.split(jax.random.key(1), batch)
    draw = jax.jit(partial(sample, model, height=height, width=width))

    def call() -> Any:
        return jax.block_until_ready(draw(variables, labels, keys))

    call()
    return seconds_of(call, calls_that_fill(3 * SHORTEST, call))


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=7, help="side of a grid, default %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="grids drawn together, default %(default)s")
    options = parser.parse_args(arguments)
    if options.grid < 1 or options.batch < 1:
        raise UserError(f"--grid={options.grid} --batch={options.batch}: both must be at least 1")
    set_cpu_options()
    from hvq_jax.priors.pixelcnn import PixelCNN
    from hvq_jax.priors.prior import Prior

    model = Prior(512, PixelCNN(num_classes=10))
    sizes = (options.batch, options.grid, options.grid)
    flop = sum(product.flop for product in products(model, *sizes))
    rate = 2 * LARGE**3 / seconds_of_large_product()
    taken, floor = seconds_of_sampling(model, *sizes), flop / rate
    print_header(["grids", "GFLOP", "floor", "sampling", "sampling / floor"])
    name = f"{options.batch} of {options.grid}×{options.grid}"
    print_line([name, f"{flop / 1e9:.1f}", f"{1e3 * floor:,.0f} ms", f"{1e3 * taken:,.0f} ms", f"{taken / floor:.1f}"])
    print(f"\na product of {LARGE}×{LARGE} matrices: {rate / 1e9:.0f} GFLOP/s")
    print(conditions(["jax", "flax", "numpy"], 1))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
