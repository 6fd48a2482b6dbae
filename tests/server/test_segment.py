"""POST /segment over HTTP: formats, parameters from every place, Accept, compression."""

from __future__ import annotations

import base64
import gzip
import io
import json
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from backports import zstd
from helpers import assert_error, drawn_image, png
from local_server import LocalServer
from numpy.typing import NDArray

from sam2_amg.answers.filters import Filters, filtered
from sam2_amg.answers.options import Options
from sam2_amg.answers.render import render
from sam2_amg.config import GeneratorConfig
from sam2_amg.decoding.stretch import STRETCHES
from sam2_amg.parameters import NAMES
from sam2_amg.pipeline.base import Generator, MaskRecord

pytestmark = pytest.mark.xdist_group("local")
IMAGE: NDArray[np.uint8] = drawn_image(60, 90)
PICTURE = png(IMAGE)
SIZE = (60, 90)


@pytest.fixture(scope="module")
def records(small_generator: Generator) -> list[MaskRecord]:
    found = small_generator.generate(IMAGE)
    assert len(found) >= 2
    return found


def send(local: LocalServer, query: str = "", path: str = "/segment", **headers: str) -> requests.Response:
    named = {"Content-Type": "image/png", "Accept-Encoding": "identity"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"{local.url}{path}?{query}", data=PICTURE, headers=named, timeout=60)


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "rle": ("rle", {}),
    "rle&counts=compressed": ("rle", {"counts": "compressed"}),
    "records": ("records", {}),
    "coco&counts=uncompressed": ("coco", {"counts": "uncompressed"}),
    "polygons&tolerance=1.5": ("polygons", {"tolerance": 1.5}),
    "labelmap": ("labelmap", {}),
    "npz": ("npz", {}),
    "png": ("png", {}),
    "png&style=outline&opacity=0.5&ids=true": ("png", {"style": "outline", "opacity": 0.5, "ids": True}),
}


@pytest.mark.parametrize("query", FORMS)
def test_formats(local: LocalServer, records: list[MaskRecord], query: str) -> None:
    name, options = FORMS[query]
    answer = send(local, f"format={query}")
    assert answer.status_code == 200, answer.text
    expected = render(name, records, SIZE, "image", Options(**options), IMAGE)
    assert answer.content == expected.data
    assert answer.headers["Content-Type"] == expected.mimetype


def test_the_older_routes_take_the_same_parameters(local: LocalServer, records: list[MaskRecord]) -> None:
    for path, name in (("/upload", "png"), ("/upload_rle", "rle")):
        assert send(local, path=path).content == render(name, records, SIZE, image=IMAGE).data
    short = send(local, "counts=compressed&max_masks=1", "/upload_rle").content
    assert short == render("rle", records[:1], SIZE, options=Options(counts="compressed")).data
    assert_error(send(local, "counts=compressed", "/upload"), 400, "invalid_parameter")


GENERATOR: dict[str, Any] = {
    "points_per_side": 3,
    "points_per_batch": 2,
    "pred_iou_thresh": 0.9,
    "stability_score_thresh": 0.98,
    "stability_score_offset": 3.0,
    "mask_threshold": 1.5,
    "box_nms_thresh": 0.1,
    "crop_n_layers": 1,
    "min_mask_region_area": 40,
    "use_m2m": True,
    "multimask_output": False,
    "point_grids": [[[0.4, 0.3], [0.6, 0.8]]],
    "points": [[30, 20.5], [70, 40]],
}
CROPS: dict[str, Any] = {"crop_nms_thresh": 0.1, "crop_overlap_ratio": 0.6, "crop_n_points_downscale_factor": 2}
FEW_CROPS = {"crop_n_layers": 1, "points_per_side": 3}
SAME = {"points_per_batch"}  # changes the last bits of sums at most


def config_of(generator: Generator, name: str, value: Any) -> GeneratorConfig:
    if name == "points":
        return replace(generator.config, point_grids=(tuple((x / 90, y / 60) for x, y in value),))
    if name == "point_grids":
        return replace(generator.config, point_grids=tuple(tuple(map(tuple, grid)) for grid in value))
    return replace(generator.config, **{name: value}, **(FEW_CROPS if name in CROPS else {}))


@pytest.fixture(scope="module")
def in_crops(small_generator: Generator) -> list[MaskRecord]:
    return small_generator.generate(IMAGE, replace(small_generator.config, **FEW_CROPS))


@pytest.mark.parametrize("name", [*GENERATOR, *CROPS])
def test_each_parameter_is_that_of_the_generator(
    local: LocalServer,
    small_generator: Generator,
    records: list[MaskRecord],
    in_crops: list[MaskRecord],
    name: str,
) -> None:
    value = (GENERATOR | CROPS)[name]
    text = json.dumps(value)
    crops = "&crop_n_layers=1&points_per_side=3" if name in CROPS else ""
    answer = send(local, f"format=records&{name}={text}{crops}")
    assert answer.status_code == 200, answer.text
    found = small_generator.generate(IMAGE, config_of(small_generator, name, value))
    assert answer.content == render("records", found, SIZE).data
    assert found != (in_crops if name in CROPS else records) or name in SAME


FILTERS: dict[str, Any] = {
    "max_masks": 1,
    "min_mask_area": 800,
    "max_mask_area": 800,
    "mask_nms_thresh": 0.05,
    "disjoint": True,
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(local: LocalServer, records: list[MaskRecord], name: str) -> None:
    answer = send(local, f"format=records&{name}={json.dumps(FILTERS[name])}")
    chosen = filtered(records, SIZE, Filters(**{name: FILTERS[name]}))
    assert answer.content == render("records", chosen, SIZE).data
    assert chosen != records


def test_every_parameter_is_tried() -> None:
    options = {name for _, values in FORMS.values() for name in values}
    assert {*GENERATOR, *CROPS, *FILTERS, *options, "format", "stretch"} == set(NAMES)


def test_all_places_say_the_same(local: LocalServer) -> None:
    asked = {"format": "records", "points_per_side": 3, "disjoint": True, "stretch": next(iter(STRETCHES))}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asked.items()}
    url, image = f"{local.url}/segment", {"image": ("a.png", PICTURE)}
    rest = {name: texts[name] for name in ("points_per_side", "stretch")}
    answers = [
        requests.post(url, params=texts, files=image, timeout=60),
        requests.post(url, data=texts, files=image, timeout=60),
        requests.post(url, json={"image": base64.b64encode(PICTURE).decode(), **asked}, timeout=60),
        requests.post(f"{url}?format=records&disjoint=1", data=rest, files=image, timeout=60),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.content for answer in answers}) == 1
    twice = requests.post(f"{url}?disjoint=1", data={"disjoint": "1"}, files=image, timeout=60)
    assert_error(twice, 400, "invalid_parameter")
    assert "disjoint stands in the query and in the body" in twice.json()["error"]["message"]


REFUSED = {
    "format=json": "format must be rle, records, coco, polygons, labelmap, npz or png, not 'json'",
    "format=npz&counts=compressed": "counts does not apply to the format npz; it does to rle, records or coco",
    "format=png&tolerance=1": "tolerance does not apply to the format png",
    "points_per_side=65": "points_per_side must be a whole number from 1 to 64, not '65'",
    "crop_n_layers=3": "crop_n_layers must be a whole number from 0 to 2, not '3'",
    "points=[[1,2]]&crop_n_layers=1": "points has no crops",
    "points=[[91,2]]": "points must be within the image of 90 x 60 pixels, not (91.0, 2.0)",
    "point_grids=[[[0.5,0.5]]]&crop_n_layers=1": "point_grids must be 2 grids",
    "crop_n_layers=2&crop_n_points_downscale_factor=3": "crop_n_points_downscale_factor must be at least 1, and small",
    "use_m2m=yes": "use_m2m must be true or false (1 or 0), not 'yes'",
}


@pytest.mark.parametrize("query", REFUSED)
def test_what_is_impossible_is_refused(local: LocalServer, query: str) -> None:
    answer = send(local, query)
    assert_error(answer, 400, "invalid_parameter")
    assert REFUSED[query] in answer.json()["error"]["message"]


def test_a_wrong_query_is_refused_before_the_body_is_sent(local: LocalServer) -> None:
    address = urlsplit(local.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=10)
    connection.putrequest("POST", "/segment?nms=1")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["error"]["code"]) == (400, "unknown_parameter")
    connection.close()


ACCEPT = {
    "*/*": "application/json",
    "application/json": "application/json",
    "image/*": "image/png",
    "image/png;q=0.5, application/octet-stream": "application/octet-stream",
    "text/html, application/xhtml+xml, */*;q=0.8": "application/json",
}


@pytest.mark.parametrize("accept", ACCEPT)
def test_accept_chooses_the_format(local: LocalServer, accept: str) -> None:
    assert send(local, Accept=accept).headers["Content-Type"] == ACCEPT[accept]


def test_a_format_wins_over_accept(local: LocalServer) -> None:
    assert send(local, "format=coco", Accept="text/csv").json()["annotations"]
    answer = send(local, Accept="text/csv, image/png;q=0")
    assert_error(answer, 406, "not_acceptable")
    assert "image/png (png)" in answer.json()["error"]["message"]


def test_compression(local: LocalServer) -> None:
    plain = send(local, "format=polygons")
    assert len(plain.content) > 1024
    for asked, coding, decode in (
        ("gzip", "gzip", gzip.decompress),
        ("gzip;q=0.5, zstd", "zstd", zstd.decompress),
        ("zstd;q=0, gzip;q=0", None, bytes),
    ):
        url, headers = f"{local.url}/segment?format=polygons", {"Content-Type": "image/png", "Accept-Encoding": asked}
        answer = requests.post(url, data=PICTURE, headers=headers, timeout=60, stream=True)
        assert answer.headers.get("Content-Encoding") == coding
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert decode(answer.raw.read(decode_content=False)) == plain.content
    for query in ("format=png", "format=npz", "format=rle&max_masks=1&counts=compressed"):
        assert "Content-Encoding" not in send(local, query, Accept_Encoding="gzip").headers


def test_a_name_is_in_the_document(local: LocalServer) -> None:
    files = {"image": ("my cat.png", io.BytesIO(PICTURE))}
    answer = requests.post(f"{local.url}/segment?format=coco", files=files, timeout=60)
    assert answer.json()["images"][0]["file_name"] == "my cat.png"
