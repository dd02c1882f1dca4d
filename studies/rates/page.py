"""The page of this study."""

from studies.page import Page, find_page, numbers_of_cells
from studies.rates.report import read_all, redraw

_ABOUT = ("share_outside", "radial_share", "length_mean", "length_spread", "spread_within_codes", "bits_of_codes")


def _numbers() -> dict[str, float]:
    numbers = {f"codebooks/{name}": value for name, value in numbers_of_cells("codebooks").items()}
    for run, result in read_all().items():
        exact = result["mse_not_rounded"]
        numbers[f"{run}/mse"] = exact
        numbers |= {f"{run}/{name}": result[name] for name in _ABOUT if name in result}
        settings = result["settings"]
        for name, setting in settings.items():
            numbers[f"{run}/{name}/mse"] = setting["mse"]
            numbers[f"{run}/{name}/bits"] = setting["bits_of_continuous"]
            numbers[f"{run}/{name}/cost"] = setting["mse"] / exact - 1
            if "1 a code" in settings:  # the share of what a mean length costs
                numbers[f"{run}/{name}/removed"] = 1 - (setting["mse"] - exact) / (settings["1 a code"]["mse"] - exact)
        numbers |= {
            f"{run}/{name}/all bits": result["bits_of_codes"] + settings[name]["bits_of_continuous"]
            for name in settings
        }
    if "frequency_20_epochs" in read_all():
        steps = read_all()["frequency_20_epochs"]["settings"]
        numbers["frequency_20_epochs/step 0.4 for 0.1/cost"] = steps["step 0.4"]["mse"] / steps["step 0.1"]["mse"] - 1
        numbers["frequency_20_epochs/step 0.8 for 0.1/cost"] = steps["step 0.8"]["mse"] / steps["step 0.1"]["mse"] - 1
    return numbers


PAGE = Page(
    find_page("rates"),
    redraw=redraw,
    numbers=_numbers,
    definitions=(
        "G = 1 to 64 bins",
        "one H200",
        "one H200",
        "JAX 0.10.2",
        "JAX 0.10.2",
        "JAX 0.10.2",
        "| 20, the default |",
        "| 2 |",
        "| 2 |",
        "| 2 |",
        "| 2 |",
        "1/D = 1.6 %",
        "length 1",
        "length 1",
        "length 1",
        "four groups 4/D = 6.3 %",
        "16 bins for each",
        "4 bins per code",
        "16 bins for all",
        "Δ = 0.1, the default, to 0.4",
        "; 0.8 costs",
        "the 101 before",
    ),
)
