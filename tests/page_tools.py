"""What the tests of the page share."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import requests
from local_server import LocalServer
from numpy.typing import NDArray
from playwright.sync_api import Page

from sam2_amg.config import GeneratorConfig
from sam2_amg.pipeline.base import Generator, MaskRecord


class HeldGenerator(Generator):
    """A generator whose images wait while the gate is closed, and of which none has a mask if `is_blind`.

    It keeps its answers: most tests send the same photograph.
    """

    def __init__(self, generator: Generator) -> None:
        self.config = generator.config
        self.gate = threading.Event()
        self.gate.set()
        self.is_blind = False
        self._generator = generator
        self._known: dict[tuple[bytes, GeneratorConfig | None], list[MaskRecord]] = {}

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        assert self.gate.wait(30)
        if self.is_blind:
            return []
        asked = image.tobytes(), config
        if asked not in self._known:
            self._known[asked] = self._generator.generate(image, config)
        return self._known[asked]


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


class Asked:
    """What the server answers to the photograph, asked for without the page."""

    def __init__(self, server: LocalServer, photo: bytes) -> None:
        self.url = f"{server.url}/segment"
        self.photo = photo
        self._known: dict[str, requests.Response] = {}

    def answer(self, query: str) -> requests.Response:
        if query not in self._known:
            answer = requests.post(f"{self.url}?{query}", files={"image": ("dog.png", self.photo)}, timeout=30)
            assert answer.status_code == 200, answer.text
            self._known[query] = answer
        return self._known[query]

    def records(self, query: str = "") -> list[Any]:
        return self.answer(f"format=records&counts=compressed{query and '&'}{query}").json()


def pick(page: Page, data: bytes, name: str = "dog.png", kind: str = "image/png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})


def until_ready(page: Page) -> None:
    page.wait_for_selector("body[data-phase=ready]")
    page.wait_for_selector("#working[data-idle]", state="attached")


def shown(page: Page) -> int:
    """How many masks are visible."""
    return int(page.get_attribute("#viewport", "data-visible") or -1)


def says(page: Page, selector: str, text: str) -> None:
    """Waits until a part of the page is seen with this text in it."""
    page.wait_for_selector(f"{selector}:has-text({json.dumps(text)})")
