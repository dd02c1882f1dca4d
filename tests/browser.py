"""Pages in headless Chromium, as a person would see them."""

import contextlib
import dataclasses
import importlib.util
import shutil
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium")
LOCAL = ("", "127.0.0.1", "localhost")  # the hosts of file:, data: and blob: are empty

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium (apt-get install chromium) and playwright",
)


@dataclasses.dataclass
class Watched:
    """A page of Playwright, and what it must not have done."""

    page: object
    errors: list  # texts of the console's errors and of exceptions
    elsewhere: list  # URLs of requests to other hosts


@contextlib.contextmanager
def opened(width=1280, height=900, **options):
    """Yield a `Watched` empty page; `options` are those of Playwright's `new_page`, such as color_scheme="dark".

    The browser is closed at the end, since other code of this thread cannot use asyncio while Playwright runs.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox, as root needs; it opens only what the tests made.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        watched = Watched(page, [], [])
        page.on("console", lambda message: message.type == "error" and watched.errors.append(message.text))
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("request", lambda request: _note_host(request.url, watched.elsewhere))
        try:
            yield watched
        finally:
            browser.close()


def _note_host(url, elsewhere):
    if (urlsplit(url).hostname or "") not in LOCAL:
        elsewhere.append(url)
