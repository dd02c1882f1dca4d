"""Time and memory of the exact codebook search: all distances at once, and in parts as the package searches.

    python -m benchmarks.search                                                         # two minutes on two cores
    python -m benchmarks.search --json=search.json

`hvq_jax.quantizers.assignment.nearest_codes` never holds more than `most_costs` distances: a codebook for which that is
too few is searched in parts. Both ways return the same indices. Memory is what XLA plans for the program:
arguments, result and temporaries.
"""

import argparse
import math
import sys
from typing import Any

from benchmarks.measuring.command import Parser, check_at_least, check_json, conditions
from benchmarks.measuring.quiet import Quietly, median_seconds
from benchmarks.measuring.table import Table
from hvq_jax.command import exit_status
from hvq_jax.devices import huge_pages
from hvq_jax.devices.xla import set_cpu_options

# Shape of the latents, K and D.
SIZES: list[tuple[tuple[int, int, int], int, int]] = [
    ((128, 7, 7), 512, 64),
    ((128, 7, 7), 8192, 64),
    ((128, 32, 32), 512, 64),
    ((512, 7, 7), 8192, 256),
]


def program(shape: tuple[int, ...], codes: int, dim: int, most_distances: int) -> tuple[Any, tuple[Any, Any]]:
    """Return the compiled search with this limit on the number of distances, and its arguments."""
    import jax

    from hvq_jax.quantizers import assignment

    keys = jax.random.split(jax.random.key(0))
    arguments = jax.random.normal(keys[0], (*shape, dim)), jax.random.normal(keys[1], (codes, dim))
    limit, assignment.most_costs = assignment.most_costs, lambda: most_distances
    try:
        return jax.jit(lambda *both: assignment.nearest_codes(*both)).lower(*arguments).compile(), arguments
    finally:
        assignment.most_costs = limit


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7, help="default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args(arguments)
    check_at_least(options, repetitions=1)
    check_json(options.json)
    set_cpu_options()
    from hvq_jax.quantizers.assignment import most_costs

    quietly = Quietly()
    table = Table(["N", "K", "D", "whole: memory", "time", "in parts: memory", "time"])
    for shape, codes, dim in SIZES:
        distances = math.prod(shape) * codes
        whole = _measure(shape, codes, dim, distances, options.repetitions, quietly)
        parts = ["the same", ""]
        if distances > most_costs():
            parts = _measure(shape, codes, dim, most_costs(), options.repetitions, quietly)
        latents = f"{math.prod(shape):,} ({shape[0]} of {shape[1]}×{shape[2]})"
        table.add([latents, f"{codes:,}", str(dim), *whole, *parts])
    table.end(f"{conditions(['jax', 'numpy'], options.repetitions)}; {quietly}", options.json)


def _measure(
    shape: tuple[int, ...], codes: int, dim: int, most_distances: int, repetitions: int, quietly: Quietly
) -> list[str]:
    """Return the cells for memory and time."""
    import jax

    from benchmarks.workloads.programs import planned_mib

    search, arguments = program(shape, codes, dim, most_distances)

    def call() -> Any:
        return jax.block_until_ready(search(*arguments))

    milliseconds = 1e3 * median_seconds(call, repetitions, quietly)
    time = f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:,.0f} ms"
    return [f"{planned_mib(search):,.0f} MiB", time]


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
