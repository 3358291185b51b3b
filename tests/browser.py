"""A real Chromium, driven by Playwright, for the tests of pages and widgets."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return one `playwright.sync_api.Browser` for a module whose conftest imports this; skip where there is none.

    Not for longer than a module: while Playwright's loop runs, nothing else in this thread can run asyncio.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser found: none of {', '.join(NAMES)} is on the PATH")
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox cannot run as root.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = driver.chromium.launch(executable_path=path, args=flags)
        yield running
        running.close()
