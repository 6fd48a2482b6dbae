"""A chromium that is installed, driven by Playwright, and tabs in which a test fails if the console has an error."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers import ROOT
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

STATIC = ROOT / "sam2_amg" / "server" / "static"
NEEDED = "no chromium; on Debian: apt install chromium"
PATIENCE_MS = 10_000


def pytest_itemcollected(item: pytest.Item) -> None:
    """One browser and one server for all."""
    if Path(__file__).parent in item.path.parents:
        item.add_marker(pytest.mark.xdist_group("page"))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Ends with the tests of this folder: Playwright's loop would be in the way of others that run one."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip(NEEDED)
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=as_root)
        yield browser
        browser.close()


@dataclass
class Console:
    """What a tab's console and its scripts have said that is wrong. `allowed` has patterns of what a test expects."""

    errors: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(f"{error.name}: {error.message}\n{error.stack}"))

    def unexpected(self) -> list[str]:
        return [error for error in self.errors if not any(re.search(pattern, error) for pattern in self.allowed)]


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def context(browser: Browser, console: Console) -> Iterator[BrowserContext]:
    """A profile of its own, whose tabs may have no error in their consoles."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.set_default_timeout(PATIENCE_MS)
    context.on("page", console.watch)
    yield context
    context.close()
    assert console.unexpected() == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="package")
def files_url() -> Iterator[str]:
    """The page's files, without the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(STATIC))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
