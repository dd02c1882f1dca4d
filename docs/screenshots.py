"""Screenshots of a page in headless Chromium, on a phone and on a desktop.

    python docs/screenshots.py runs/quickstart/report.html docs/images/report

writes docs/images/report_390.png, in the dark colour scheme, and docs/images/report_1280.png, in the light one. It
needs Chromium (apt-get install chromium) and requirements-dev.txt.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

VIEWS = {390: "dark", 1280: "light"}  # colour scheme by width in pixels
HEIGHT = 1800  # pixels; the rest of the page is cut off


def save_screenshots(page_file: Path, stem: str) -> None:
    """Write `stem`_390.png and `stem`_1280.png of a page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, scheme in VIEWS.items():
            page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            page.goto(page_file.resolve().as_uri())
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            shot.save(f"{stem}_{width}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    save_screenshots(Path(sys.argv[1]), sys.argv[2])
