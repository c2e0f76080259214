"""A real Chromium, as Debian packages it: pip brings the driver and no browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VARIABLE = "ACCLIMATE_TEST_CHROMIUM"


class NoChromiumError(RuntimeError):
    """There is none here."""


def find_chromium() -> str:
    """The program: of the environment, or on PATH. Raises NoChromiumError."""
    named = os.environ.get(VARIABLE)
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise NoChromiumError(
            f"expected one of {', '.join(NAMES)} on PATH (on Debian: apt-get install chromium), "
            f"or {VARIABLE}"
        )
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, for the length of a `with` block. Raises NoChromiumError."""
    program = find_chromium()
    from playwright.sync_api import sync_playwright

    # As root, which containers and CI run as, Chromium's own sandbox does not start.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()
