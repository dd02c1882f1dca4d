"""Screenshots for the documentation, of pages that are opened as a person would see them.

    make quickstart docs && .venv/bin/python -m pytest -n 0 tests/screenshots.py

writes `docs/images/report_390.png` (dark), `report_1280.png` (light) and `site.png`. Pytest does not collect this file
by itself, since it needs the report of a whole run and the site.
"""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import needs_chromium, opened

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "runs/quickstart/report.html"
SITE = ROOT / "build/site/index.html"


@needs_chromium
@pytest.mark.parametrize(
    ("name", "file", "width", "height", "scheme"),
    [
        ("report_390", REPORT, 390, 1800, "dark"),
        ("report_1280", REPORT, 1280, 1800, "light"),
        ("site", SITE, 1280, 1000, "light"),
    ],
)
def test_a_page_loads_nothing_from_elsewhere_and_is_shown(name, file, width, height, scheme):
    with opened(width=width, height=height, color_scheme=scheme) as watched:
        watched.page.goto(file.as_uri())
        shot = Image.open(io.BytesIO(watched.page.screenshot())).convert("RGB")
        assert (watched.errors, watched.elsewhere) == ([], [])
    assert shot.size == (width, height)
    assert len(shot.getcolors(2**24)) > 100  # pictures and text, not a blank page
    shot.save(ROOT / "docs/images" / f"{name}.png", optimize=True)
