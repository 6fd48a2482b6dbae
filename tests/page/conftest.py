"""A chromium that is installed, driven by Playwright, and one server for all tests of the page.

A test fails if the console of a tab of its has an error that it does not expect.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import CPU
from local_server import OWN, LocalServer, serving
from page_tools import Asked, Console, HeldGenerator, pick, until_ready
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright
from small_model import small_demo_model

from sam2_amg.config import Limits, Mode
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.modes.build import build_generator
from sam2_amg.server.access import Access

NEEDED = "no chromium; on Debian: apt install chromium"
FLAGS = ["--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
PATIENCE_MS = 10_000
SEARCH = replace(OWN, points_per_side=8)
SLOTS = 4
KEY = "0123456789abcdef"


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
        browser = playwright.chromium.launch(executable_path=program, args=[*as_root, *FLAGS])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def generator() -> HeldGenerator:
    return HeldGenerator(build_generator(small_demo_model(128), Mode.AO, SEARCH, CPU))


@pytest.fixture(scope="package")
def served(generator: HeldGenerator, decoders: DecoderPool) -> Iterator[LocalServer]:
    limits = Limits(queue_size=SLOTS)
    with serving(generator, decoders, limits, own=SEARCH, access=Access(is_loopback=True)) as server:
        yield server


@pytest.fixture
def with_key(generator: HeldGenerator, decoders: DecoderPool) -> Iterator[LocalServer]:
    """A server that wants `KEY`."""
    with serving(generator, decoders, Limits(), own=SEARCH, access=Access(KEY, is_loopback=True)) as server:
        yield server


@pytest.fixture
def held(generator: HeldGenerator) -> Iterator[HeldGenerator]:
    """The server's generator, its gate closed."""
    generator.gate.clear()
    yield generator
    generator.is_blind = False
    generator.gate.set()


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def context(browser: Browser, console: Console) -> Iterator[BrowserContext]:
    with profile(browser, console) as context:
        yield context


@contextmanager
def profile(browser: Browser, console: Console) -> Iterator[BrowserContext]:
    """A profile of its own, whose tabs may have no error in their consoles."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    context.on("page", console.watch)
    yield context
    context.close()
    assert console.unexpected() == []


@pytest.fixture
def page(context: BrowserContext, served: LocalServer) -> Page:
    """The page, without a photograph."""
    page = context.new_page()
    page.goto(served.url)
    return page


@pytest.fixture(scope="package")
def photo() -> bytes:
    """A photograph without loss, so that a browser has the server's very pixels."""
    buffer = io.BytesIO()
    Image.open(PHOTOGRAPHS / "dog.jpg").resize((400, 267)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="package")
def asked(served: LocalServer, photo: bytes) -> Asked:
    return Asked(served, photo)


@pytest.fixture
def uploads(page: Page) -> list[Request]:
    """The uploads of the page so far."""
    found: list[Request] = []
    page.on("request", lambda request: found.append(request) if "/segment?" in request.url else None)
    return found


@pytest.fixture
def segmented(page: Page, photo: bytes) -> Page:
    """The page with the photograph and its masks."""
    pick(page, photo)
    until_ready(page)
    return page


@pytest.fixture(scope="module")
def shared(browser: Browser, served: LocalServer, photo: bytes) -> Iterator[Page]:
    """The same for the tests of a file that leave it as it was."""
    with profile(browser, Console()) as context:
        page = context.new_page()
        page.goto(served.url)
        pick(page, photo)
        until_ready(page)
        yield page
