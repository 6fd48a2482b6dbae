"""Who may ask the server: keys, origins and names, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from helpers import DEMO_DIR
from local_server import running
from requests import Response

from sam2_amg.config import Limits, ModelConfig, ServerConfig
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.errors import StartupError
from sam2_amg.server.access import Access, read_key
from sam2_amg.server.engine import Engine
from sam2_amg.server.listen import bind
from sam2_amg.server.messages import Head
from sam2_amg.server.segmenting import local_desk
from sam2_amg.server.startup import make_front

KEY = "0123456789abcdef"


@contextmanager
def serving(decoders: DecoderPool, **changes: object) -> Iterator[str]:
    """A server that is starting: its address."""
    config = ServerConfig(ModelConfig(DEMO_DIR, "demo"), **changes)
    sock = bind("127.0.0.1", 0)
    with running(make_front(config, local_desk(Engine(None, Limits()), decoders), sock), sock) as url:
        yield url


def code(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_key_is_needed_but_for_health(tmp_path: Path, decoders: DecoderPool) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    with serving(decoders, api_key_file=tmp_path / "key") as url:
        assert requests.get(f"{url}/healthz", timeout=5).status_code == 200
        assert requests.get(f"{url}/readyz", timeout=5).status_code == 503
        for wrong in (
            {},
            {"Authorization": f"Bearer {KEY}0"},
            {"Authorization": KEY},
            {"Authorization": "Bearer \xe4"},
        ):
            assert code(requests.get(f"{url}/info", headers=wrong, timeout=5)) == (401, "unauthorized")
            assert code(requests.post(f"{url}/upload", headers=wrong, timeout=5)) == (401, "unauthorized")
            assert code(requests.options(f"{url}/upload", headers=wrong, timeout=5)) == (401, "unauthorized")
        assert requests.get(f"{url}/info", headers={"Authorization": f"bearer {KEY}"}, timeout=5).status_code == 200
        chunks = requests.get(f"{url}/healthz", data=(bytes(1000) for _ in range(100)), timeout=5)
        assert code(chunks) == (413, "body_too_large")


@pytest.mark.parametrize("content", ["", "short", "with a space in it, long", "\xe4" * 20])
def test_a_key_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(StartupError, match=r"--api_key_file .*key needs a first line of at least 16 .*openssl rand"):
        read_key(tmp_path / "key")
    with pytest.raises(StartupError, match="--api_key_file missing cannot be read"):
        read_key(Path("missing"))


def test_foreign_names_and_pages_are_refused_on_loopback(decoders: DecoderPool) -> None:
    with serving(decoders) as url:
        for host in ("example.org", "example.org:5000", "127.0.0.1.example.org", "[x"):
            assert code(requests.get(f"{url}/info", headers={"Host": host}, timeout=5)) == (403, "foreign_host")
        for host in ("localhost", "LOCALHOST:1", "127.0.0.2", "[::1]:80", "a.localhost"):
            assert requests.get(f"{url}/info", headers={"Host": host}, timeout=5).status_code == 200
        foreign = requests.post(f"{url}/upload", headers={"Origin": "https://example.org"}, timeout=5)
        assert code(foreign) == (403, "foreign_origin")
        odd = requests.get(f"{url}/info", headers={"Origin": "http://[x"}, timeout=5)
        assert code(odd) == (403, "foreign_origin")
        assert requests.get(f"{url}/info", headers={"Origin": url}, timeout=5).status_code == 200
    with serving(decoders, cors_origin="*") as url:
        odd = requests.get(f"{url}/info", headers={"Origin": b"http://\xe9"}, timeout=5)
        assert odd.status_code == 200


def test_the_pages_of_one_origin_may_ask(decoders: DecoderPool) -> None:
    origin = "https://example.org"
    with serving(decoders, cors_origin=origin) as url:
        answer = requests.get(f"{url}/info", headers={"Origin": origin}, timeout=5)
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = requests.options(f"{url}/upload", headers=asks, timeout=5)
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        other = requests.get(f"{url}/info", headers={"Origin": "https://example.com"}, timeout=5)
        assert code(other) == (403, "foreign_origin")
        assert "Access-Control-Allow-Origin" not in other.headers


def test_elsewhere_than_on_loopback_any_name_is_taken() -> None:
    head = Head("GET", "/info", "", "1.1", [("host", "example.org"), ("origin", "https://example.org")])
    Access().check(head)
    assert Access(cors_origin="*").headers(head)[-3:][0] == ("Access-Control-Allow-Origin", "https://example.org")


def test_every_answer_has_its_headers(decoders: DecoderPool) -> None:
    with serving(decoders) as url:
        for path, identity in (
            ("/healthz", "a-b.c"),
            ("/nowhere", "x"),
            ("/healthz", "no good\u00e4"),
            ("/healthz", ""),
        ):
            answer = requests.get(url + path, headers={"X-Request-ID": identity.encode("latin-1")}, timeout=5)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert (answer.headers["X-Request-ID"] == identity) == (identity in ("a-b.c", "x"))
            assert answer.headers["X-Request-ID"]
