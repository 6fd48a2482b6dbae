"""How long the page takes when the pointer moves over masks: `python -m bench.page_hover`.

A chromium that is installed (on Debian: apt install chromium), headless, shows a photograph with overlapping discs as
its masks. The product's server serves the page; the answer with the masks is put in the place of its own. The pointer
goes along lines, and jumps. What is measured is all that listeners do with an event, and what the page's code draws in
the frame after it; painting by the browser comes on top.

Exits with 1 if the handler takes as long as is demanded, or longer.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from tqdm import tqdm

from bench import RESULTS
from bench.harness.machine import machine
from bench.harness.server_process import running
from bench.report.pages import write
from bench.startup import free_port
from sam2_amg.answers.options import Options
from sam2_amg.answers.render import render
from sam2_amg.answers.runs import Runs, uncompressed
from sam2_amg.pipeline.base import MaskRecord

_PROGRAM = ("-m", "bench.harness.bench_server", "instant")
_PATIENCE = 180.0  # seconds until the server is ready
_MOST = {"p50": 4.0, "p99": 16.0}  # milliseconds that a handler may take
_STEP = 7.0  # CSS pixels from one place of a line to the next
_VIEWPORT = {"width": 1440, "height": 900}
_WATCH = """
(() => {
  const handlers = [];
  const frames = [];
  window.timesOfHover = { handlers, frames };
  let start = 0;
  window.addEventListener("pointermove", () => (start = performance.now()), true);
  window.addEventListener("pointermove", () => handlers.push(performance.now() - start));
  const { requestAnimationFrame } = window;
  window.requestAnimationFrame = (draw) =>
    requestAnimationFrame((now) => {
      const start = performance.now();
      draw(now);
      frames.push(performance.now() - start);
    });
})();
"""


def disc(x: float, y: float, radius: float, size: tuple[int, int]) -> Runs:
    """The runs of a disc in an image of `size` (height, width)."""
    height, width = size
    columns = np.arange(max(0, int(x - radius)), min(width, int(x + radius) + 1))
    reach = np.sqrt(np.maximum(0, radius**2 - (columns - x) ** 2))
    tops, bottoms = np.clip(np.round([y - reach, y + reach]), 0, height).astype(np.int64)
    seen = bottoms > tops
    starts, ends = columns * height + tops, columns * height + bottoms
    return Runs(starts[seen], ends[seen])


def discs(count: int, size: tuple[int, int]) -> list[MaskRecord]:
    """Records of discs, of which most are small, as those of a photograph."""
    height, width = size
    rng = np.random.default_rng(0)
    records: list[MaskRecord] = []
    while len(records) < count:
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        radius = height * float(np.exp(rng.uniform(np.log(0.02), np.log(0.4))))
        runs = disc(x, y, radius, size)
        area = int((runs.ends - runs.starts).sum())
        records.append(
            {
                "segmentation": uncompressed(_joined(runs), size),
                "area": area,
                "bbox": [x - radius, y - radius, 2 * radius, 2 * radius],
                "predicted_iou": 1 - len(records) / (2 * count),
                "point_coords": [[x, y]],
                "stability_score": 0.97,
                "crop_box": [0.0, 0.0, float(width), float(height)],
            }
        )
    return records


def _joined(runs: Runs) -> Runs:
    """The same pixels in runs of which no two touch."""
    apart = runs.starts[1:] != runs.ends[:-1]
    return Runs(runs.starts[np.append(True, apart)], runs.ends[np.append(apart, True)])


def photograph(size: tuple[int, int]) -> bytes:
    """A JPEG of noise in blocks."""
    height, width = size
    noise = np.random.default_rng(1).integers(0, 256, (height // 50, width // 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(file, "JPEG")
    return file.getvalue()


@contextmanager
def shown(url: str, size: tuple[int, int], records: list[MaskRecord], program: str) -> Iterator[Page]:
    """The page with a photograph and its masks."""
    answer = render("records", records, size, options=Options(counts="compressed"))
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        page = browser.new_page(viewport=_VIEWPORT)  # type: ignore[arg-type]
        page.add_init_script(_WATCH)
        page.route("**/segment?*", lambda route: route.fulfill(body=answer.data, content_type=answer.mimetype))
        page.goto(url)
        file = {"name": "discs.jpg", "mimeType": "image/jpeg", "buffer": photograph(size)}
        page.set_input_files("#file", file)  # type: ignore[arg-type]
        page.wait_for_selector("body[data-phase=ready]", timeout=120_000)
        yield page
        browser.close()


def along_lines(moves: int, box: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Places along lines between random places of a box: left, top, width, height."""
    rng = np.random.default_rng(2)
    left, top, width, height = box
    here = np.array([left + width / 2, top + height / 2])
    while moves:
        there = rng.uniform((left, top), (left + width, top + height))
        steps = max(1, int(np.hypot(*(there - here)) / _STEP))
        for x, y in np.linspace(here, there, steps, endpoint=False)[:moves]:
            yield float(x), float(y)
        moves -= min(moves, steps)
        here = there


def jumps(moves: int, box: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Random places of a box."""
    rng = np.random.default_rng(3)
    left, top, width, height = box
    for x, y in rng.uniform((left, top), (left + width, top + height), (moves, 2)):
        yield float(x), float(y)


def measure(page: Page, moves: int) -> list[dict[str, Any]]:
    """A row for each way in which the pointer moves. Times are in milliseconds."""
    place = page.locator("#viewport").bounding_box()
    assert place is not None
    box = (place["x"], place["y"], place["width"], place["height"])
    rows = []
    for name, places in (("along lines", along_lines(moves, box)), ("in jumps", jumps(moves, box))):
        page.evaluate("() => Object.values(window.timesOfHover).forEach((times) => times.splice(0))")
        lit = set()
        for x, y in tqdm([*places], desc=name, disable=None):
            page.mouse.move(x, y)
            lit.add(page.get_attribute("#viewport", "data-lit"))
        times = json.loads(page.evaluate("() => JSON.stringify(window.timesOfHover)"))
        assert len(times["handlers"]) >= 0.9 * moves
        figures = {kind: _figures(times[kind]) for kind in ("handlers", "frames")}
        rows.append({"pointer": name, "moves": len(times["handlers"]), "lit": len(lit - {None}), **figures})
    return rows


def _figures(times: Sequence[float]) -> dict[str, float]:
    quantiles = {f"p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 99)}
    return {**quantiles, "most": round(max(times), 2), "count": len(times)}


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.page_hover", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--masks", type=int, default=300, help="default %(default)s")
    parser.add_argument("--width", type=int, default=4000, help="of the photograph (default %(default)s)")
    parser.add_argument("--height", type=int, default=3000, help="of the photograph (default %(default)s)")
    parser.add_argument("--moves", type=int, default=1500, help="of the pointer, in each way (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    program = shutil.which("chromium")
    if program is None:
        parser.error("no chromium; on Debian: apt install chromium")
    size = (args.height, args.width)
    port = free_port()
    with (
        running(_PROGRAM, ["--device", "cpu"], port, 0, _PATIENCE),
        shown(f"http://127.0.0.1:{port}", size, discs(args.masks, size), program) as page,
    ):
        rows = measure(page, args.moves)
        version = page.context.browser.version if page.context.browser else ""
    result = {
        "what": "page-hover",
        "model": "discs",
        "command": shlex.join(["python", "-m", "bench.page_hover", *arguments]),
        "machine": machine("cpu"),
        "chromium": version,
        "masks": args.masks,
        "width_height": [args.width, args.height],
        "viewport": [_VIEWPORT["width"], _VIEWPORT["height"]],
        "demanded_ms": _MOST,
        "rows": rows,
    }
    write(result, args.out)
    if any(row["handlers"][name] >= most for row in rows for name, most in _MOST.items()):
        raise SystemExit("bench.page_hover: the handler takes longer than is demanded")


if __name__ == "__main__":
    main(sys.argv[1:])
