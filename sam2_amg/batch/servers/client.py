"""One request to a server for the masks of an image, and what its answer means."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import orjson
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, ProtocolError
from urllib3.filepost import encode_multipart_formdata

from sam2_amg.errors import StartupError

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord

_LONGEST_QUERY = 4096  # characters; longer parameters are sent in a form
_FAULTS_OF_ALL = {401, 403, 404, 405, 406, 407, 426}  # what every image would get
_LATER = {408, 409, 425, 429}  # of the statuses below 500, those that say: try again
# Codes of statuses from 500 that an image may cause: those that a server says of it, and those that can have any cause.
_OWN_FAULTS = {"internal_error", "out_of_memory", "timeout"}
_PERHAPS_FAULTS = {"failed", "cancelled", "http_500", "http_502", "http_504"}
_TIMING = re.compile(r"(\w+);dur=([0-9.]+)")
_CONNECT_TIMEOUT = 10.0  # seconds


class RemoteError(Exception):
    """An image has no masks: a server refused it. `code` is the server's, as in docs/http-api.md."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Answer:
    """What a server answers to an image. `records` are those of format=records&counts=compressed, `size` is (height,
    width) of the upright image, `milliseconds` are the server's, by stage."""

    records: list[MaskRecord]
    size: tuple[int, int]
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Setback:
    """Why an image is to be sent again.

    `fault` is what is wrong with the image if that happens time and again; None where it cannot be the image's fault.
    `is_certain` says that the server put it down to the image. `is_down` says that it could not be reached.
    """

    reason: str
    fault: RemoteError | None = None
    is_certain: bool = False
    response: urllib3.BaseHTTPResponse | None = None
    is_down: bool = False


class Client:
    """Sends requests, a connection for each of `at_once` threads and server. Safe to use from many threads."""

    def __init__(
        self, parameters: Mapping[str, str], api_key: str | None, servers: int, at_once: int, timeout: float
    ) -> None:
        # coco has the image's size even where there is no mask, and all that records have
        self._parameters = {**parameters, "format": "coco", "counts": "compressed"}
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeouts = urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=timeout)
        self._http = urllib3.PoolManager(servers, maxsize=at_once, timeout=timeouts, retries=False)

    def segment(self, url: str, data: bytes) -> Answer | Setback:
        """Sends an image file to the server at `url`. Raises RemoteError if that refuses the image, StartupError if it
        would refuse every image."""
        try:
            response = self._post(url, data)
            if response.status == 200:
                return _answer_of(response)
        except HTTPError as error:
            return _setback_of(url, error)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise not_ours(url, 200) from error
        code, message = error_of(response)
        if response.status in _FAULTS_OF_ALL or response.status < 400 or code == "unknown_parameter":
            raise StartupError(f"--server {url}: {message} ({response.status} {code})")
        if response.status >= 500 or response.status in _LATER:
            fault = RemoteError(code, message) if code in _OWN_FAULTS | _PERHAPS_FAULTS else None
            return Setback(f"{code}: {message}", fault, code in _OWN_FAULTS, response)
        raise RemoteError(code, message)

    def require_parameters(self, url: str) -> Setback | None:
        """Sends no image, so that a server which takes the parameters says no more than that.

        Raises StartupError if it does not take them.
        """
        try:
            outcome = self.segment(url, b"")
        except RemoteError as error:
            if error.code == "empty_body":
                return None
            raise StartupError(f"--server {url}: {error.message} ({error.code})") from error
        return outcome if isinstance(outcome, Setback) else None

    def is_ready(self, url: str) -> str:
        """Why a server is not ready; empty if it is. Raises StartupError if it is another kind of server."""
        try:
            response = self._http.request("GET", f"{url}/readyz", headers=self._headers)
        except HTTPError as error:
            return _setback_of(url, error).reason
        if response.status < 500 and response.status not in {200, *_LATER}:
            raise not_ours(url, response.status)
        return "" if response.status == 200 else error_of(response)[1]

    def info(self, url: str) -> dict[str, Any]:
        """What /info answers. Raises StartupError."""
        try:
            response = self._http.request("GET", f"{url}/info", headers=self._headers)
            facts = orjson.loads(response.data) if response.status == 200 else None
        except (HTTPError, orjson.JSONDecodeError) as error:
            raise StartupError(f"--server {url}/info cannot be read ({error}); look after the server") from error
        if not isinstance(facts, dict) or not {"model", "mode", "weights", "parameters"} <= facts.keys():
            raise not_ours(url, response.status)
        return facts

    def close(self) -> None:
        """Closes idle connections."""
        self._http.clear()

    def _post(self, url: str, data: bytes) -> urllib3.BaseHTTPResponse:
        query = urlencode(self._parameters)
        headers = {**self._headers, "Content-Type": "application/octet-stream"}
        if len(query) > _LONGEST_QUERY:
            file = ("image", ("image", data, "application/octet-stream"))
            data, headers["Content-Type"] = encode_multipart_formdata([*self._parameters.items(), file])
            query = ""
        return self._http.request("POST", f"{url}/segment?{query}", body=data, headers=headers)


def records_of(annotations: list[dict[str, Any]]) -> list[MaskRecord]:
    """sam2's records of COCO's annotations. Boxes of COCO include the last pixel: there one pixel has width 1."""
    return [cast("MaskRecord", _record_of(annotation)) for annotation in annotations]


def _record_of(annotation: dict[str, Any]) -> dict[str, Any]:
    x, y, width, height = annotation["bbox"]
    return {
        "segmentation": annotation["segmentation"],
        "area": annotation["area"],
        "bbox": [x, y, max(0.0, width - 1), max(0.0, height - 1)],
        "predicted_iou": annotation["predicted_iou"],
        "point_coords": annotation["point_coords"],
        "stability_score": annotation["stability_score"],
        "crop_box": annotation["crop_box"],
    }


def _answer_of(response: urllib3.BaseHTTPResponse) -> Answer:
    document = orjson.loads(response.data)
    (image,) = document["images"]
    timing = {name: float(text) for name, text in _TIMING.findall(response.headers.get("Server-Timing", ""))}
    return Answer(records_of(document["annotations"]), (image["height"], image["width"]), timing)


def _setback_of(url: str, error: HTTPError) -> Setback:
    """What an error of a connection means.

    A server that takes an image, and ends its connection instead of an answer, may have ended by that image. A
    connection that is reset has lost what was sent to it. Raises StartupError for a certificate that is not trusted.
    """
    reason = " ".join(str(error).split())[:200]
    if error.args and isinstance(error.args[-1], ssl.SSLCertVerificationError):
        raise StartupError(
            f"--server {url}: its certificate is not trusted ({reason}); name one that is in SSL_CERT_FILE"
        )
    if isinstance(error, NewConnectionError | NameResolutionError | ConnectTimeoutError):
        return Setback(reason, is_down=True)
    cause = error.args[1] if isinstance(error, ProtocolError) and len(error.args) > 1 else None
    if isinstance(cause, BrokenPipeError) or type(cause) is ConnectionResetError:
        return Setback(reason)
    return Setback(reason, RemoteError("no_answer", f"Servers end their connection at this image, or hang: {reason}"))


def error_of(response: urllib3.BaseHTTPResponse) -> tuple[str, str]:
    """Code and message of an error, also of one that a proxy made."""
    try:
        error = orjson.loads(response.data)["error"]
        return str(error["code"]), str(error["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"http_{response.status}", f"{response.status} {response.reason or ''}".strip()


def not_ours(url: str, status: int) -> StartupError:
    """The error about another kind of server."""
    return StartupError(
        f"--server {url} (status {status}) is no server of this kind; give the address of sam2-amg serve"
    )
