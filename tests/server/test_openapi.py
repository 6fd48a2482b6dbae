"""/openapi.json is true: schemathesis sends what it allows and what it forbids, and looks at every answer."""

from __future__ import annotations

import base64
import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import requests
import schemathesis
from helpers import drawn_image, png
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from local_server import LocalServer, serving
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.schemas import APIOperation, BaseSchema

from sam2_amg.config import Limits
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.pipeline.base import Generator

pytestmark = pytest.mark.xdist_group("local")
PICTURE = png(drawn_image(20, 30))
FILES = st.sampled_from([PICTURE] * 4 + [b"", b"text", PICTURE[:99]])
IMAGE_TYPES = ("application/octet-stream", "image/jpeg", "image/png", "image/webp", "image/tiff")
ARCHIVE_TYPES = ("application/x-tar", "application/tar", "application/zip", "application/x-zip-compressed")
# Parameters may contradict each other, and points lie outside the image: no schema says that.
EXCLUDED = {
    GenerationMode.POSITIVE: ("positive_data_acceptance", "negative_data_rejection"),
    GenerationMode.NEGATIVE: (),
}
CONTRADICTIONS = (
    "is over max_mask_area|takes the place of|has no crops|does not apply to the format|within the image of|"
    "must be 1 grid without|small enough to leave a point|stands in the query and in the body|"
    "must be JSON"  # in a form it is a text
)
BAD_FILES = ("empty_body", "truncated_image", "malformed_archive")


@pytest.fixture(scope="module")
def bounded(small_generator: Generator, decoders: DecoderPool) -> Iterator[LocalServer]:
    """A server that bounds the work of a request."""
    with serving(small_generator, decoders, Limits(max_points_per_side=4, max_crop_n_layers=0)) as server:
        yield server


@pytest.fixture(scope="module")
def described(bounded: LocalServer) -> dict[str, Any]:
    return requests.get(f"{bounded.url}/openapi.json", timeout=30).json()


def operations(described: dict[str, Any]) -> list[APIOperation]:
    schemathesis.openapi.format("binary", FILES)
    schemathesis.openapi.format("byte", FILES.map(lambda data: base64.b64encode(data).decode()))
    for kind in (*IMAGE_TYPES, *ARCHIVE_TYPES):
        schemathesis.openapi.media_type(kind, FILES)
    schema: BaseSchema = schemathesis.openapi.from_dict(described)
    return [result.ok() for result in schema.get_all_operations()]


def thinned(case: Case, keep: int) -> Case:
    """The case with fewer parameters: with many, some contradict each other."""
    case.query = dict(list(case.query.items())[:keep])
    if isinstance(case.body, dict):
        others = [name for name in case.body if name != "image"][:keep]
        case.body = {name: value for name, value in case.body.items() if name == "image" or name in others}
    return case


def assert_right(case: Case, url: str, mode: GenerationMode) -> int:
    """Sends a case, and returns the status of its answer."""
    excluded = [check for check in CHECKS.get_all() if check.__name__ in EXCLUDED[mode]]
    answer = case.call_and_validate(base_url=url, excluded_checks=excluded, timeout=60)
    if mode is GenerationMode.POSITIVE and answer.status_code == 400:
        error = answer.json()["error"]
        assert error["code"] in BAD_FILES or re.search(CONTRADICTIONS, error["message"]), error
    return answer.status_code


def fuzz(described: dict[str, Any], url: str, cases: int) -> Counter[int]:
    """Sends cases to routes, half of them valid, and checks each answer. How often each status came."""
    statuses: Counter[int] = Counter()
    for operation, mode in product(operations(described), (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)):
        made = operation.as_strategy(generation_mode=mode)
        if mode is GenerationMode.POSITIVE:
            made = st.builds(thinned, made, st.sampled_from([0, 1, 2, 3, 99]))

        @seed(0)
        @settings(
            max_examples=cases // 8 if operation.method == "post" else max(1, cases // 50),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=made)
        def send(case: Case) -> None:
            statuses[assert_right(case, url, mode)] += 1  # noqa: B023

        with contextlib.suppress(Unsatisfiable):  # a route without parameters takes nothing wrong
            send()
    return statuses


def test_a_few_cases(bounded: LocalServer, described: dict[str, Any]) -> None:
    paths = {path: item for path, item in described["paths"].items() if not path.startswith("/upload")}
    statuses = fuzz({**described, "paths": paths}, bounded.url, 16)
    assert statuses[200] >= 8
    assert statuses[400] >= 5


@pytest.mark.slow
def test_a_thousand_cases(bounded: LocalServer, described: dict[str, Any]) -> None:
    statuses = fuzz(described, bounded.url, 1000)
    print(statuses)
    assert statuses.total() >= 1000
    assert statuses[200] >= 80
    assert statuses[400] >= 100


def test_every_route_is_described(bounded: LocalServer, described: dict[str, Any]) -> None:
    app = bounded.front.handler.app  # type: ignore[attr-defined]
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    paths = described["paths"].items()
    assert {(path, method) for path, item in paths for method in item if method != "parameters"} == routes


def test_the_page_asks_no_other_host(bounded: LocalServer) -> None:
    page = requests.get(f"{bounded.url}/docs", timeout=30)
    policy = page.headers["Content-Security-Policy"]
    assert set(re.findall(r"'\w+'|https?:\S*|\*", policy)) == {"'none'", "'self'"}
    assert "unsafe" not in policy
    assets = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        answer = requests.get(f"{bounded.url}/{asset}", timeout=30)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith(("text/css", "text/javascript"))
    assert "//" not in page.text
    assert requests.get(f"{bounded.url}/docs/..%2fopenapi.py", timeout=30).status_code == 404
