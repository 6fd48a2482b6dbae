"""GET / and the files of the page: what they are, who gets them, and that they name no other host."""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin

import pytest
import requests
from helpers import assert_error
from local_server import LocalServer

from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.server.access import Access
from sam2_amg.server.messages import Head
from sam2_amg.server.page import HOME, STATIC, TYPES, page_files

pytestmark = pytest.mark.xdist_group("local")
TEXTS = {name: path.read_text() for name, path in page_files().items() if path.suffix != ".jpg"}
FOUND = r"""(?:from|import) "(\.[^"]+)"|new URL\("([^"]+\.js)"|(?:href|src)="(page/[^"#]+)\""""


def get(local: LocalServer, path: str, **headers: str) -> requests.Response:
    return requests.get(local.url + path, headers=headers, timeout=10)


def test_home_is_the_page(local: LocalServer) -> None:
    for accept in ("text/html", "application/json", "*/*"):
        answer = get(local, "/", Accept=accept)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert answer.content == (STATIC / HOME).read_bytes()
    head = requests.head(f"{local.url}/", timeout=10)
    assert (head.status_code, head.content) == (200, b"")


def test_every_file_is_answered_with_its_type_and_a_strict_policy(local: LocalServer) -> None:
    for name, path in page_files().items():
        answer = get(local, f"/page/{name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["Content-Type"].partition(";")[0] == TYPES[path.suffix]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_a_file_that_did_not_change_is_not_sent_again(local: LocalServer) -> None:
    first = get(local, "/page/js/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = get(local, "/page/js/main.js", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert get(local, "/page/js/api.js", **{"If-None-Match": first.headers["ETag"]}).status_code == 200


@pytest.mark.parametrize("name", ["", "missing.js", "../page.py", "js/../../page.py", "/etc/passwd", "js", "samples/"])
def test_nothing_else_is_there(local: LocalServer, name: str) -> None:
    for path in (f"/page/{name}", f"/page/{quote(name, safe='')}"):
        assert_error(get(local, path), 404, "not_found")


def test_samples_are_the_photographs() -> None:
    samples = [name for name in page_files() if name.startswith("samples/")]
    assert samples == [f"samples/{path.name}" for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    assert len(samples) == 3


def test_the_page_needs_no_key_and_nothing_else_goes_with_it() -> None:
    access = Access(api_key="k" * 16)
    for path in ("/", "/page/js/main.js", "/page/"):
        access.check(Head("GET", path, "", "1.1", []))
    for path in ("/info", "/pages/", "/page", "/requests/page/x"):
        with pytest.raises(Exception, match="needs a key"):
            access.check(Head("GET", path, "", "1.1", []))


def test_files_name_files_that_are_there_and_each_is_named() -> None:
    named = {HOME}
    for name, text in TEXTS.items():
        for target in filter(None, (part for found in re.findall(FOUND, text) for part in found)):
            base = "" if target.startswith("page/") else name
            named.add(urljoin(base, target).removeprefix("page/"))
    assert named == page_files().keys()


def test_nothing_stands_in_line_and_no_host_is_named() -> None:
    for name, text in TEXTS.items():
        hosts = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg", "http://127.0.0.1:5000"}
        assert not hosts, name
        assert not re.search(r"\binnerHTML|\bouterHTML|insertAdjacentHTML|\beval\(|new Function", text), name
    page = TEXTS[HOME]
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! type=\"module\" src=)", page)
