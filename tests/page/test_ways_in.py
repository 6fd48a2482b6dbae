"""How photographs come in, and what is said while the server works."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import requests
from helpers import drawn_image, png, wait_until
from local_server import LocalServer
from page_tools import Asked, Console, HeldGenerator, pick, says, shown, until_ready
from PIL import Image, ImageOps
from playwright.sync_api import JSHandle, Page, Request, Route

from sam2_amg.demo import PHOTOGRAPHS

REFUSED = "Failed to load resource: the server responded with a status of {}"
COUNT_STREAMS = """() => {
  const devices = navigator.mediaDevices;
  const open = devices.getUserMedia.bind(devices);
  window.streams = 0;
  devices.getUserMedia = (asked) => {
    window.streams++;
    return open(asked);
  };
}"""
CARRY = """async ([name, type, text]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  return data;
}"""


def carried(page: Page, data: bytes, name: str = "dog.png", kind: str = "image/png") -> JSHandle:
    """What a drop or a paste carries."""
    return page.evaluate_handle(CARRY, [name, kind, base64.b64encode(data).decode()])


def drop(page: Page, data: bytes) -> None:
    transfer = carried(page, data)
    for kind in ("dragenter", "dragover"):
        page.dispatch_event("#stage, #welcome", kind, {"dataTransfer": transfer})
    page.wait_for_selector("#dropping")
    page.dispatch_event("#dropping", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("#dropping", state="hidden")


def paste(page: Page, data: bytes) -> None:
    page.evaluate(
        "(data) => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
        carried(page, data),
    )


def choose(page: Page, data: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a file").click()
    chooser.value.set_files({"name": "dog.png", "mimeType": "image/png", "buffer": data})


def take(page: Page, data: bytes) -> None:
    """By the device's own camera."""
    page.set_input_files("#capture", {"name": "image.png", "mimeType": "image/png", "buffer": data})


@pytest.mark.parametrize("way", [choose, drop, paste, take], ids=lambda way: way.__name__)
def test_a_photograph_comes_in(page: Page, photo: bytes, asked: Asked, way: Callable[[Page, bytes], None]) -> None:
    way(page, photo)
    until_ready(page)
    assert shown(page) == len(asked.records()) > 10


def test_samples(page: Page, served: LocalServer) -> None:
    page.get_by_role("button", name="Dog", exact=True).click()
    until_ready(page)
    data = (PHOTOGRAPHS / "dog.jpg").read_bytes()
    answer = requests.post(f"{served.url}/segment?format=records", files={"image": ("dog.jpg", data)}, timeout=30)
    assert shown(page) == len(answer.json())
    for name in ("groceries.jpg", "truck.jpg"):
        found = requests.get(f"{served.url}/page/samples/{name}", timeout=5)
        assert found.content == (PHOTOGRAPHS / name).read_bytes()


def test_a_sample_that_comes_late_is_dropped(page: Page, photo: bytes, uploads: list[Request]) -> None:
    late: list[Route] = []
    page.route("**/page/samples/truck.jpg", lambda route: late.append(route))
    page.get_by_role("button", name="Truck").click()
    wait_until(lambda: len(late) == 1 or page.wait_for_timeout(20))
    pick(page, photo)
    until_ready(page)
    with page.expect_response("**/page/samples/truck.jpg") as answer:
        late[0].continue_()
    answer.value.finished()
    page.wait_for_timeout(100)
    assert len(uploads) == 1
    assert page.title().startswith("dog.png")
    assert page.get_attribute("body", "data-phase") == "ready"


def test_the_camera(page: Page, held: HeldGenerator) -> None:
    """Chromium's own test picture, a pie on green, stands for a camera."""
    page.evaluate(COUNT_STREAMS)
    page.get_by_role("button", name="Use the camera").evaluate("(button) => (button.click(), button.click())")
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("() => window.streams") == 1
    tracks = page.evaluate_handle("""() => new Promise((resolve) => {
      const finder = document.getElementById("finder");
      const look = () => (finder.videoWidth ? resolve(finder.srcObject.getTracks()) : requestAnimationFrame(look));
      look();
    })""")
    page.get_by_role("button", name="Take the photograph").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    says(page, "#progress", "Segmenting")
    assert tracks.evaluate("(tracks) => tracks.map((track) => track.readyState)") == ["ended"]
    red, green, blue, _ = shown_at(page, 300, 300)
    assert green > 100 > max(red, blue)
    held.is_blind = True  # the picture is large
    held.gate.set()
    until_ready(page)
    says(page, "#note", "found no masks")


def shown_at(page: Page, x: float, y: float) -> list[float]:
    """The mean colour that is shown of 21 x 21 pixels around a pixel of the photograph."""
    return page.evaluate(
        """([x, y]) => {
      const canvas = document.getElementById("photo");
      const { scale, x: left, y: top } = document.getElementById("viewport").dataset;
      const size = 21 * scale;
      const place = [Number(left) + x * scale - size / 2, Number(top) + y * scale - size / 2];
      const { data } = canvas.getContext("2d").getImageData(...place, size, size);
      const sums = [0, 0, 0, 0];
      data.forEach((value, i) => (sums[i % 4] += value));
      return sums.map((sum) => (4 * sum) / data.length);
    }""",
        [x, y],
    )


def test_the_photograph_is_there_at_once(page: Page, photo: bytes, held: HeldGenerator) -> None:
    pick(page, photo)
    says(page, "#progress", "Segmenting")
    for x, y in ((60, 60), (200, 130), (330, 200)):
        *colour, alpha = shown_at(page, x, y)
        box = (x - 10, y - 10, x + 11, y + 11)
        expected = np.array(Image.open(io.BytesIO(photo)).convert("RGB").crop(box)).mean(axis=(0, 1))
        assert alpha == 255
        assert colour == pytest.approx(expected, abs=6)
    assert page.get_attribute("body", "data-phase") == "working"
    held.gate.set()
    until_ready(page)


@contextmanager
def others(server: LocalServer, count: int, held: HeldGenerator) -> Iterator[None]:
    """Has requests of others before the page's; they end with the context."""
    data = png(drawn_image(20, 30))
    with ThreadPoolExecutor(count) as pool:
        sent = []
        for _ in range(count):
            before = taken(server)
            headers = {"Content-Type": "image/png"}
            sent.append(pool.submit(requests.post, f"{server.url}/upload_rle", data, headers=headers, timeout=30))
            wait_until(lambda before=before: taken(server) > before)
        try:
            yield
        finally:
            held.gate.set()
        assert [answer.result().status_code for answer in sent] == [200] * count


def taken(server: LocalServer) -> int:
    return requests.get(f"{server.url}/info", timeout=5).json()["queue"]["taken"]


def test_progress_tells_the_place_in_line(page: Page, served: LocalServer, photo: bytes, held: HeldGenerator) -> None:
    with others(served, 3, held):
        pick(page, photo)
        says(page, "#progress", "Third in line")
    until_ready(page)


def test_a_request_is_cancelled(
    page: Page, served: LocalServer, photo: bytes, held: HeldGenerator, uploads: list[Request]
) -> None:
    pick(page, photo)
    says(page, "#progress", "Segmenting")
    with page.expect_request(lambda request: request.method == "DELETE"):
        page.get_by_role("button", name="Cancel").click()
    says(page, "#fault", "Cancelled")
    page.wait_for_selector("#working[data-idle]", state="attached")
    address = f"{served.url}/requests/{uploads[0].headers['x-request-id']}"
    wait_until(lambda: requests.get(address, timeout=5).json()["state"] == "cancelled")
    held.gate.set()
    page.get_by_role("button", name="Try again").click()
    until_ready(page)
    assert shown(page) > 0


def test_a_new_photograph_takes_the_place_of_one_under_way(
    page: Page, served: LocalServer, photo: bytes, asked: Asked, held: HeldGenerator, uploads: list[Request]
) -> None:
    pick(page, png(drawn_image(60, 80)), "drawn.png")
    says(page, "#progress", "Segmenting")
    pick(page, photo)
    wait_until(lambda: len(uploads) == 2 or page.wait_for_timeout(20))
    address = f"{served.url}/requests/{uploads[0].headers['x-request-id']}"
    wait_until(lambda: requests.get(address, timeout=5).json()["state"] == "cancelled")
    held.gate.set()
    until_ready(page)
    assert shown(page) == len(asked.records())


def test_a_key_is_asked_for_once(page: Page, with_key: LocalServer, photo: bytes, console: Console) -> None:
    console.allowed.append(REFUSED.format(401))
    page.goto(with_key.url)
    dialog = page.get_by_role("dialog")
    says(page, "dialog[open]", "needs a key")
    for key, problem in (("0123456789abcdeX", "does not take that key"), ("0123456789abcdef", None)):
        dialog.get_by_label("API key").fill(key)
        dialog.get_by_role("button", name="Go on").click()
        if problem:
            says(page, "dialog[open]", problem)
    dialog.wait_for(state="hidden")
    pick(page, photo)
    until_ready(page)
    assert shown(page) > 0
    page.reload()
    says(page, "#model", "demo")
    dialog.wait_for(state="hidden")
    page.keyboard.press("?")
    assert not page.locator("#docs").is_visible()


def test_a_busy_server_is_said_and_asked_again(
    page: Page, served: LocalServer, photo: bytes, held: HeldGenerator, console: Console
) -> None:
    console.allowed.append(REFUSED.format(503))
    with others(served, 4, held):
        refused = requests.post(f"{served.url}/upload", photo, headers={"Content-Type": "image/png"}, timeout=5)
        assert refused.status_code == 503
        pick(page, photo)
        says(page, "[role=alert]", refused.json()["error"]["message"])
        says(page, "#retry", "Try again in ")
        assert page.locator("#retry[role=alert], [role=alert] #retry").count() == 0  # it ticks
        says(page, "[role=alert]", "The page tries again in ")
        page.locator("#retry").click()  # before its time: the server is as busy as before
        says(page, "[role=alert]", refused.json()["error"]["message"])
    until_ready(page)  # the button presses itself
    assert shown(page) > 0
    page.get_by_role("alert").wait_for(state="hidden")


def test_a_bad_file_is_said(page: Page, served: LocalServer, console: Console) -> None:
    console.allowed.append(REFUSED.format(415))
    refused = requests.post(f"{served.url}/upload", b"no photograph", headers={"Content-Type": "image/png"}, timeout=5)
    pick(page, b"no photograph")
    says(page, "[role=alert]", refused.json()["error"]["message"])
    page.wait_for_selector("#retry", state="hidden")
    page.get_by_role("button", name="Close").press("Enter")
    page.get_by_role("alert").wait_for(state="hidden")
    assert page.evaluate("() => document.activeElement.dataset.way") == "open"


def test_a_file_that_the_browser_cannot_show(page: Page, photo: bytes, asked: Asked) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(buffer, "TIFF")
    pick(page, buffer.getvalue(), "dog.tif", "image/tiff")
    says(page, "#note", "cannot show this kind of file")
    until_ready(page)
    assert shown(page) == len(asked.records())


def test_an_answer_of_a_proxy_is_said(page: Page, photo: bytes) -> None:
    """The page stays with a file that it cannot show: the server may read it."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(buffer, "TIFF")
    page.route("**/segment?*", lambda route: route.fulfill(status=200, body="<h1>Please log in</h1>"))
    pick(page, buffer.getvalue(), "dog.tif", "image/tiff")
    says(page, "#fault", "The answer is not the server's")
    assert page.get_attribute("body", "data-phase") == "failed"
    page.unroute("**/segment?*")
    page.get_by_role("button", name="Try again").click()
    until_ready(page)
    assert shown(page) > 0


def test_a_photograph_is_upright(page: Page, photo: bytes, served: LocalServer) -> None:
    """Masks are those of the photograph as its EXIF turns it, and so is what is shown."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    pick(page, buffer.getvalue(), "turned.jpg", "image/jpeg")
    until_ready(page)
    page.get_by_role("button", name="Fit the photograph").click()
    left, scale = (float(page.get_attribute("#viewport", name) or 0) for name in ("data-x", "data-scale"))
    width = page.evaluate("() => document.getElementById('viewport').clientWidth")
    assert width - 2 * left == pytest.approx(267 * scale, abs=1)
    upright = ImageOps.exif_transpose(Image.open(buffer))
    places = ((60, 60), (130, 200), (200, 330), (60, 330))
    seen = np.array([shown_at(page, x, y)[:3] for x, y in places])

    def differs(picture: Image.Image) -> float:
        boxes = [(x - 10, y - 10, x + 11, y + 11) for x, y in places]
        means = [np.array(picture.crop(box)).mean(axis=(0, 1)) for box in boxes]
        return float(np.abs(seen - means).max())

    assert differs(upright) < 15
    assert differs(image.resize(upright.size)) > 45
    answer = requests.post(f"{served.url}/segment?format=records", files={"image": buffer.getvalue()}, timeout=30)
    assert shown(page) == len(answer.json()) > 0
