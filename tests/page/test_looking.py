"""Looking at masks: what is lit, filters, another search, zoom, styles, comparison, keyboard, widths, access."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from local_server import LocalServer
from numpy.typing import NDArray
from page_tools import Asked, Console, pick, says, shown, until_ready
from PIL import Image
from playwright.sync_api import Browser, Page
from pycocotools import mask as coco_mask

from sam2_amg.answers.filters import Filters, filtered

SIZE = (267, 400)
FRAME = "() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"


RECORD = """() => {
  const seen = [];
  const { dataset } = document.getElementById("viewport");
  document.addEventListener("pointermove", () => seen.push({ lit: dataset.lit ?? "", stack: dataset.stack ?? "" }));
  return seen;
}"""


class Stage:
    """The viewport: where pixels of the photograph are, and what is lit."""

    def __init__(self, page: Page) -> None:
        self.page = page
        box = page.locator("#viewport").bounding_box()
        assert box is not None
        self.box = box

    def data(self) -> dict[str, str]:
        return self.page.evaluate("() => ({ ...document.getElementById('viewport').dataset })")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The point of the window where a pixel of the photograph has its middle."""
        data = self.data()
        scale = float(data["scale"])
        return (
            self.box["x"] + float(data["x"]) + (x + 0.5) * scale,
            self.box["y"] + float(data["y"]) + (y + 0.5) * scale,
        )

    def pixel(self, left: float, top: float) -> tuple[float, float]:
        """The point of the photograph at a point of the window. Inverse of `place`."""
        data = self.data()
        scale = float(data["scale"])
        x, y = left - self.box["x"] - float(data["x"]), top - self.box["y"] - float(data["y"])
        return x / scale - 0.5, y / scale - 0.5

    def hover(self, x: float, y: float) -> list[int]:
        self.page.mouse.move(*self.place(x, y))
        return self.stack()

    def stack(self) -> list[int]:
        """The visible masks under the pointer, as the page has them; the first is lit."""
        data = self.data()
        stack = [int(name) for name in data.get("stack", "").split(",") if name]
        assert data.get("lit") == (str(stack[0]) if stack else None)
        return stack

    def selected(self) -> list[int]:
        return [int(name) for name in self.data()["selected"].split(",") if name]


@pytest.fixture
def stage(segmented: Page) -> Stage:
    return Stage(segmented)


@pytest.fixture
def same(shared: Page) -> Stage:
    """The stage of a page that several tests have, each of which leaves it as it was."""
    return Stage(shared)


def pixels_of(records: list[Any]) -> NDArray[np.bool_]:
    """The masks by pycocotools, [n, h, w]."""
    return coco_mask.decode([record["segmentation"] for record in records]).transpose(2, 0, 1).astype(bool)


def stack_at(records: list[Any], masks: NDArray[np.bool_], x: int, y: int) -> list[int]:
    """The masks of a pixel: the smaller lies on the larger, of equal ones the later."""
    inside = np.flatnonzero(masks[:, y, x]).tolist()
    return sorted(inside, key=lambda i: (records[i]["area"], -i))


def test_hover_lights_the_mask_of_the_pixel(same: Stage, asked: Asked) -> None:
    records = asked.records()
    masks = pixels_of(records)
    rng = np.random.default_rng(8)
    depth = masks.sum(axis=0)
    places = [*zip(rng.integers(0, SIZE[1], 120), rng.integers(0, SIZE[0], 120), strict=True)]
    deep_y, deep_x = np.nonzero(depth > 1)
    chosen = rng.integers(0, len(deep_x), 80)
    places += [*zip(deep_x[chosen], deep_y[chosen], strict=True)]  # 200, of which many have several masks
    assert sum(depth[y, x] > 1 for x, y in places) >= 80
    places = [*dict.fromkeys((int(x), int(y)) for x, y in places)]
    corner, scale = same.place(0, 0), float(same.data()["scale"])
    seen = same.page.evaluate_handle(RECORD)
    for x, y in places:
        same.page.mouse.move(corner[0] + x * scale, corner[1] + y * scale)
    same.page.evaluate(FRAME)
    stacks = [stack_at(records, masks, x, y) for x, y in places]
    expected = [{"lit": str(stack[0]) if stack else "", "stack": ",".join(map(str, stack))} for stack in stacks]
    assert seen.json_value() == expected
    assert len(expected) >= 195


def deepest(records: list[Any]) -> tuple[int, int]:
    depth = pixels_of(records).sum(axis=0)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    assert depth[y, x] >= 2
    return int(x), int(y)


def test_a_key_goes_through_overlapping_masks(same: Stage, asked: Asked) -> None:
    stack = same.hover(*deepest(asked.records()))
    for number in (*stack[1:], stack[0]):
        same.page.keyboard.press("c")
        assert same.data()["lit"] == str(number)
    record = asked.records()[stack[0]]
    says(same.page, "#numbers", f"Predicted IoU {record['predicted_iou']:.3f}")
    says(same.page, "#numbers", f"stability {record['stability_score']:.3f}")
    says(same.page, "#numbers", f"area {record['area']:,} px")
    same.page.mouse.move(5, 5)
    assert "lit" not in same.data()


def test_the_pointer_acts_where_it_is_after_keys(same: Stage, asked: Asked) -> None:
    page, (x, y) = same.page, deepest(asked.records())
    stack = same.hover(x, y)
    page.locator("#viewport").focus()
    page.keyboard.press("Escape")
    assert "lit" not in same.data()
    point = same.place(x, y)
    page.mouse.move(point[0] + 0.1, point[1])
    assert same.data()["lit"] == str(stack[0])
    page.keyboard.press("Home")
    while same.data()["lit"] in map(str, stack):
        page.keyboard.press("ArrowRight")
    page.mouse.down()  # where it is, without a movement
    page.mouse.up()
    assert same.selected() == [stack[0]]
    page.mouse.move(5, 5)
    page.keyboard.press("Escape")


SLIDERS = {"min-iou": "0.6", "min-stability": "0.9", "min-area": "60", "max-overlap": "0.35"}


def test_filters_are_those_of_the_server(same: Stage, asked: Asked) -> None:
    page, records = same.page, asked.records()
    assert shown(page) == len(records)

    def value(name: str) -> float:
        return float(page.get_attribute(f"#{name}-value", "data-value") or -1)

    def expected() -> int:
        passing = [
            record
            for record in records
            if record["predicted_iou"] > value("min-iou") and record["stability_score"] >= value("min-stability")
        ]
        filters = Filters(int(value("min-area")) or None, mask_nms_thresh=value("max-overlap"))
        return len(filtered(passing, SIZE, filters))

    counts = []
    for name, position in SLIDERS.items():
        page.locator(f"#{name}").fill(position)
        assert shown(page) == expected(), name
        counts.append(shown(page))
        page.get_by_role("button", name="Reset filters").click()
        assert shown(page) == len(records)
    assert max(counts) < len(records)
    for name, position in SLIDERS.items():
        page.locator(f"#{name}").fill(position)
    assert 0 < shown(page) == expected() < min(counts)
    says(page, "#count", f"{shown(page)} of {len(records)}")
    page.get_by_role("button", name="Reset filters").click()


def test_another_search_asks_the_server(stage: Stage, asked: Asked) -> None:
    page = stage.page
    page.locator("#min-area").fill("5")
    page.get_by_text("Search again").first.click()
    page.get_by_label("Points per side").fill("4")
    page.get_by_label("Least predicted IoU").fill("0.2")
    page.locator("#search-form").get_by_role("button", name="Search again").click()
    least = int(page.get_attribute("#min-area-value", "data-value") or 0)
    expected = len(asked.records(f"points_per_side=4&pred_iou_thresh=0.2&min_mask_area={least}"))
    page.wait_for_selector(f"#viewport[data-visible='{expected}']")
    until_ready(page)
    assert expected != len(asked.records())
    assert page.get_attribute("#min-area-value", "data-value") == str(least) != "0"


def test_a_kept_mask_survives_another_search_and_drops_its_twin(stage: Stage, asked: Asked) -> None:
    page = stage.page
    page.locator("#viewport").focus()
    for key in ("Home", "Enter", "k"):
        page.keyboard.press(key)
    page.get_by_text("Search again").first.click()
    page.get_by_label("Least predicted IoU").fill("0.2")
    page.locator("#search-form").get_by_role("button", name="Search again").click()
    records = asked.records("pred_iou_thresh=0.2")
    assert records[0] == asked.records()[0]
    page.wait_for_selector(f"#viewport[data-visible='{len(records) + 1}']")
    until_ready(page)
    assert page.get_attribute("#kept li", "data-id") == str(len(records))
    y, x = np.argwhere(pixels_of(records)[0])[0].tolist()
    assert {0, len(records)} <= {*stage.hover(x, y)}
    page.locator("#max-overlap").fill("0.99")
    assert {0, len(records)} & {*stage.hover(x + 0.1, y)} == {len(records)}


def test_a_deletion_brings_no_duplicate_up(stage: Stage, asked: Asked) -> None:
    page, records = stage.page, asked.records()
    page.locator("#max-overlap").fill("0.35")
    count = shown(page)
    passing = filtered(records, SIZE, Filters(mask_nms_thresh=0.35))
    best = next(
        i
        for i, record in enumerate(records)
        if record in passing
        and len(filtered([*records[:i], *records[i + 1 :]], SIZE, Filters(mask_nms_thresh=0.35))) >= count
    )
    page.locator("#viewport").focus()
    page.keyboard.press("Home")
    while stage.data()["lit"] != str(best):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    assert shown(page) == count - 1
    page.keyboard.press("Control+z")
    assert shown(page) == count


def test_zoom_keeps_what_is_under_the_pointer(same: Stage, asked: Asked) -> None:
    page, (x, y) = same.page, deepest(asked.records())
    stack, fitted = same.hover(x, y), same.data()
    page.mouse.move(*(point := [round(value) for value in same.place(x, y)]))  # wheels turn at whole pixels
    under = same.pixel(*point)
    page.mouse.wheel(0, -600)
    page.wait_for_selector(f"#viewport:not([data-scale='{fitted['scale']}'])")
    assert float(same.data()["scale"]) > 1.5 * float(fitted["scale"])
    assert same.pixel(*point) == pytest.approx(under, abs=0.01)
    assert same.hover(x, y) == stack
    point = same.place(x, y)
    page.mouse.down()
    page.mouse.move(point[0] + 30, point[1] + 20, steps=3)
    page.mouse.up()
    assert same.place(x, y) == pytest.approx((point[0] + 30, point[1] + 20), abs=0.01)
    assert same.selected() == []
    page.keyboard.press("0")
    assert [same.data()[name] for name in ("scale", "x", "y")] == [fitted[name] for name in ("scale", "x", "y")]
    page.keyboard.press("+")
    assert float(same.data()["scale"]) > float(fitted["scale"])
    page.keyboard.press("-")
    assert float(same.data()["scale"]) == pytest.approx(float(fitted["scale"]))
    page.keyboard.press("0")


def drawn_at(stage: Stage, x: int, y: int) -> list[int]:
    """The pixel of the layer of masks at a pixel of the photograph: red, green, blue, alpha."""
    left, top = stage.place(x, y)
    return stage.page.evaluate(
        """([x, y]) => {
      const canvas = document.getElementById("masks");
      return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
    }""",
        [left - stage.box["x"], top - stage.box["y"]],
    )


def inside_of_the_largest(records: list[Any]) -> tuple[int, int]:
    """A pixel that is 4 pixels from all edges, in one mask alone."""
    masks = pixels_of(records)
    lone = masks.sum(axis=0) == 1
    for y in range(4, SIZE[0] - 4):
        for x in range(4, SIZE[1] - 4):
            if lone[y - 4 : y + 5, x - 4 : x + 5].all() and len({*masks[:, y - 4 : y + 5, x].argmax(axis=0)}) == 1:
                return x, y
    raise AssertionError("no such pixel")


def test_styles_and_opacity(same: Stage, asked: Asked) -> None:
    page, (x, y) = same.page, inside_of_the_largest(asked.records())
    fill = drawn_at(same, x, y)
    assert fill[3] == pytest.approx(0.55 * 255, abs=1)
    page.locator("#opacity").fill("0.2")
    page.evaluate(FRAME)
    assert drawn_at(same, x, y)[3] == pytest.approx(0.2 * 255, abs=1)
    for style in ("Outline", "Boxes"):
        page.get_by_role("radio", name=style).check()
        page.evaluate(FRAME)
        assert drawn_at(same, x, y)[3] == 0
    page.get_by_role("radio", name="Fill").check()
    page.evaluate(FRAME)
    assert drawn_at(same, x, y)[3] == pytest.approx(0.2 * 255, abs=1)
    page.locator("#opacity").fill("0.55")


def seen(stage: Stage) -> NDArray[np.uint8]:
    """What the window shows of the stage without the bars over it, RGB."""
    stage.page.mouse.move(5, 5)
    stage.page.evaluate(FRAME)
    box = {**stage.box, "y": stage.box["y"] + 100, "height": stage.box["height"] - 220}
    return np.array(Image.open(io.BytesIO(stage.page.screenshot(clip=box))).convert("RGB"))


def test_comparison(same: Stage) -> None:
    page, divider = same.page, same.page.get_by_role("slider", name="Compare")
    page.keyboard.press("Escape")
    with_masks = seen(same)
    page.keyboard.press("v")
    assert divider.get_attribute("aria-valuenow") == "50"
    box = divider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(same.box["x"] + same.box["width"] / 4, box["y"] + 200, steps=3)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "25"
    divided = seen(same)
    divider.focus()
    page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "27"
    page.keyboard.press("End")
    original = seen(same)
    at, handle = divided.shape[1] // 4, 80  # with its shadow
    for part, expected in ((slice(20, at - handle), original), (slice(at + handle, -120), with_masks)):
        assert np.array_equal(divided[:, part], expected[:, part])
        assert not np.array_equal(original[:, part], with_masks[:, part])
    page.get_by_role("button", name="Compare").click()
    divider.wait_for(state="hidden")


def test_all_by_keyboard(stage: Stage, asked: Asked) -> None:
    page, keys, count = stage.page, stage.page.keyboard, len(asked.records())
    page.locator("#viewport").focus()

    def press(*names: str) -> None:
        for name in names:
            keys.press(name)

    press("Home")
    assert stage.data()["lit"] == "0"
    press("ArrowRight", "ArrowRight", "ArrowLeft", "Enter")
    assert (stage.data()["lit"], stage.selected()) == ("1", [1])
    press("ArrowRight", "Shift+Enter", "m")  # 1 and 2 are one now
    assert (shown(page), stage.selected()) == (count - 1, [count])
    press("k")
    assert page.get_attribute("#kept-count", "data-value") == "1"
    press("Home", "Escape", "Home", "Enter", "h")
    assert shown(page) == count - 2
    press("Home", "Enter", "Delete")
    assert shown(page) == count - 3
    press("Control+z", "Control+z", "Control+z", "Control+z")
    assert (shown(page), page.get_attribute("#kept-count", "data-value")) == (count, "0")
    press("Control+Shift+z", "Control+Shift+z")
    assert (shown(page), page.get_attribute("#kept-count", "data-value")) == (count - 1, "1")
    press("Escape")
    assert stage.selected() == []
    press("?")
    says(page, "dialog[open]", "Keyboard")
    link = page.get_by_role("link", name="HTTP interface")
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener")
    press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")


def focused(page: Page) -> str:
    page.evaluate(FRAME)
    return page.evaluate("() => document.activeElement.id")


def test_clicks_select_and_edit(stage: Stage, asked: Asked) -> None:
    page, records = stage.page, asked.records()
    masks = pixels_of(records)
    tops = {stack[0]: (x, y) for x, y in np.ndindex(400, 267) if (stack := stack_at(records, masks, x, y))}
    (first, at), (second, there) = [*tops.items()][:2]
    page.mouse.click(*stage.place(*at))
    assert stage.selected() == [first]
    page.keyboard.down("Shift")
    page.mouse.click(*stage.place(*there))
    page.keyboard.up("Shift")
    assert stage.selected() == [first, second]
    page.get_by_role("button", name="Hide", exact=True).click()
    assert shown(page) == len(records) - 2
    assert focused(page) == "viewport"  # as are the keys of the buttons below, which end disabled or hidden
    page.locator("#show-hidden").press("Enter")
    assert shown(page) == len(records)
    assert focused(page) == "viewport"
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    assert shown(page) == len(records)
    page.mouse.click(*stage.place(*at))
    page.get_by_role("button", name="Keep", exact=True).click()
    page.get_by_role("textbox", name=f"Name of mask {first + 1}").fill("the dog")
    page.locator("#max-overlap").focus()
    says(page, "#selection-text", "the dog")
    assert focused(page) == "max-overlap"
    page.get_by_role("button", name=f"Let go of mask {first + 1}").press("Enter")
    assert focused(page) == "viewport"


def serious(page: Page) -> list[str]:
    """What axe-core finds that keeps people from using the page."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {json.dumps([node['target'] for node in each['nodes']])}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_access(browser: Browser, served: LocalServer, photo: bytes, console: Console, width: int, scheme: Any) -> None:
    """axe-core finds nothing serious, and nothing is cut off or scrolls sideways."""
    page = browser.new_page(
        viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce", has_touch=width < 600
    )
    console.watch(page)
    page.goto(served.url)
    assert serious(page) == []
    pick(page, photo)
    until_ready(page)
    page.locator("#viewport").focus()
    for key in ("Home", "Enter", "k"):
        page.keyboard.press(key)
    for details in page.locator("summary").all():
        details.click()
    page.evaluate(FRAME)
    assert serious(page) == []
    across = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert across == [width, width]
    light = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(light[:3]) > 600) == (scheme == "light")
    stage = Stage(page)
    assert stage.box["width"] >= 0.7 * width
    assert stage.box["height"] >= 240
    page.keyboard.press("?")
    assert serious(page) == []
    page.close()
    assert console.unexpected() == []


def test_a_phone(browser: Browser, served: LocalServer, photo: bytes, asked: Asked, console: Console) -> None:
    """On a narrow page with touch, a tap selects, and the panel can be pushed down."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    console.watch(page)
    page.goto(served.url)
    pick(page, photo)
    until_ready(page)
    x, y = inside_of_the_largest(asked.records())
    page.touchscreen.tap(*Stage(page).place(x, y))
    assert Stage(page).selected() == [int(pixels_of(asked.records())[:, y, x].argmax())]
    heights = []
    for _ in range(2):
        heights.append(Stage(page).box["height"])
        page.locator("#sheet").click()
        page.evaluate(FRAME)
        page.keyboard.press("Tab")
        within = page.evaluate("() => document.getElementById('panel-body').contains(document.activeElement)")
        assert within == (len(heights) == 2)
    heights.append(Stage(page).box["height"])
    assert [a < b for a, b in pairwise(heights)] == [True, False]
    context.close()
    assert console.unexpected() == []
