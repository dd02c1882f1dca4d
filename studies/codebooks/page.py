"""The page of this study."""

from hvq_jax.files import write_text
from studies import find_folder
from studies.codebooks.revival import Results, read_results, table
from studies.page import Page, find_page, numbers_of_cells, redraw_cells


def _redraw() -> None:
    redraw_cells("codebooks")
    write_text(find_folder("codebooks") / "revival.md", table(read_results()))


def _numbers() -> dict[str, float]:
    numbers = numbers_of_cells("codebooks")
    uniform = numbers["vq/gradient, uniform init/mse"]
    for init in ("data", "k-means"):
        numbers[f"reduction by {init} init"] = 1 - numbers[f"vq/gradient, {init} init/mse"] / uniform
    numbers["reduction by revival"] = 1 - numbers["vq/ema, data init/mse"] / numbers["vq/ema, no revival/mse"]
    by_gradient = [name for name in numbers if name.startswith("vq/gradient, ") and "/seed 0/" in name]
    for metric in ("mse", "codes_used"):
        values = [numbers[name] for name in by_gradient if name.endswith(f"/{metric}")]
        numbers |= {f"gradient/least/{metric}": min(values), f"gradient/most/{metric}": max(values)}
    for name in ("ema, data init", "ema, data init, seed 1", "ema, assignment cosine"):
        numbers[f"{name} above ema, data init/mse"] = numbers[f"vq/{name}/mse"] - numbers["vq/ema, data init/mse"]
    return numbers | _revival_numbers(read_results())


def _revival_numbers(results: Results) -> dict[str, float]:
    numbers = {
        f"revival/{int(codes):,}/{threshold}/{metric.replace('validation_', 'validation/')}": value
        for codes, of_codes in results.items()
        for threshold, metrics in of_codes.items()
        for metric, value in metrics.items()
        if isinstance(value, float)
    }
    absolute = results["8192"]["one per step"]
    numbers["revival/commitment ratio"] = absolute["validation_commitment"] / absolute["train_commitment"]
    numbers["revival/default/most/revived"] = max(of_codes["default"]["revived"] for of_codes in results.values())
    return numbers


PAGE = Page(
    find_page("codebooks"),
    redraw=_redraw,
    numbers=_numbers,
    definitions=(
        "D = 64",
        "K = 512",
        "batch 128",
        "weights of 1",
        "van den Oord's 0.25",
        "weight at 0.25",
        "0.25 is the default",
        "entropy term at 0.1",
        "of 512",
        "weight of 0.1",
        "length 1",
        "length 1",
        "commitment 0.25",
        "weight 1,",
        "weight 0.1 and temperature 1,",
        "commit 7e348d9",
        "with 023535c",
        "from 0.",
        "512 codes and 6,272 positions",
        "0.082 of the mean",
        "now 0.08;",
        "has 1/W of",
        'seed 1"',
        'seed 1"',
        "D = 32",
        "batch 16: 784",
        "0.08 of the mean number",
        "64 to 8,192 codes",
        "to 512 codes, 1.5 positions",
        "1,024 codes",
        "8,192 codes",
        "8,192 codes",
        "8,192 codes",
        "64 codes",
        "JAX 0.10.2",
        "JAX 0.10.2",
    ),
)
