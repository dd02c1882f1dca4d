"""The pages whose numbers, tables and figures are written from stored results."""

from studies.codebooks.page import PAGE as CODEBOOKS
from studies.defaults.page import PAGE as DEFAULTS
from studies.frontier.page import PAGE as FRONTIER
from studies.page import ROOT, Page
from studies.rates.page import PAGE as RATES
from studies.report.page import PAGE as REPORT
from studies.samples.page import PAGE as SAMPLES
from studies.stability.page import PAGE as STABILITY

STUDY_PAGES = {
    "stability": STABILITY,
    "codebooks": CODEBOOKS,
    "defaults": DEFAULTS,
    "frontier": FRONTIER,
    "rates": RATES,
    "samples": SAMPLES,
    "report": REPORT,
}


def _numbers() -> dict[str, float]:
    return {f"{study}/{name}": value for study, page in STUDY_PAGES.items() for name, value in page.values.items()}


def _tables() -> dict[str, str]:
    return {f"{study}/{name}": text for study, page in STUDY_PAGES.items() for name, text in page.texts.items()}


INDEX = Page(
    ROOT / "studies" / "README.md",
    redraw=lambda: None,
    numbers=_numbers,
    definitions=(
        "from step 200 on",
        "the 101 steps",
        "95 % interval excludes 0",
        "D = 64",
        "JAX 0.10.2",
        "the H200",
        "the H200",
    ),
)
RESULTS = Page(
    ROOT / "docs" / "results.md",
    redraw=lambda: None,
    numbers=_numbers,
    tables=_tables,
    definitions=(
        "55,000 images, and 5,000 for validation",
        "D = 64",
        "K = 512",
        "S = 312",
        "batch 128",
        "10,000 test images",
        "JAX 0.10.2",
        "95 % interval",
        "in 20 epochs",
        "percent of 1 as",
        "0.4 million parameters",
        "10,000 class-conditional samples",
        "length 1",
    ),
)
README = Page(
    ROOT / "README.md",
    redraw=lambda: None,
    numbers=_numbers,
    sections=("The answer so far",),
    definitions=(": 95 % intervals",),
)
SUMMARIES = (RESULTS, README)  # of all studies: written whichever is named
PAGES = {**STUDY_PAGES, "studies": INDEX, "results": RESULTS, "README": README}
