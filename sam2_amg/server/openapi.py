"""The description of the HTTP interface, OpenAPI 3.1: GET /openapi.json, and GET /docs to read it in a browser.

Its schemas are those of the models that read requests (`sam2_amg/parameters.py`), within the server's limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
from flask import Flask, Response, abort
from pydantic.json_schema import models_json_schema

from sam2_amg.answers.json_line import json_line
from sam2_amg.config import GeneratorConfig, ServerConfig
from sam2_amg.parameters import APPLIES, schemas
from sam2_amg.process.version import find_version
from sam2_amg.server.answer_models import MODELS
from sam2_amg.server.archives import TYPES
from sam2_amg.server.metrics import CONTENT_TYPE
from sam2_amg.server.page import TYPES as PAGE_TYPES
from sam2_amg.server.page import page_files
from sam2_amg.server.parameters import FORMATS, model_of

Json = dict[str, Any]

_ANY_ERRORS = (400, 401, 403, 404, 405, 408, 413, 431, 500, 501, 503)
_UPLOAD_ERRORS = (406, 409, 415, 504)
_FILE = {"type": "string", "format": "binary"}
_IMAGE_TYPES = ("application/octet-stream", "image/jpeg", "image/png", "image/webp", "image/tiff")
_BODIES = {"rle": "Rles", "records": "Records", "coco": "CocoDocument", "polygons": "PolygonRecords"}
_FILES = {"labelmap": "image/png", "npz": "application/octet-stream", "png": "image/png"}
_SUMMARIES = {
    "upload": "The masks of an image, drawn on it",
    "upload_rle": "The masks of an image as run lengths",
    "segment": "The masks of an image, in a format",
    "batch": "The masks of many images, a line each as they finish",
}
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><title>SAM 2.1 masks over HTTP</title><link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body><div id="page"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body>
</html>
"""
_START = """\
SwaggerUIBundle({url: "openapi.json", dom_id: "#page", validatorUrl: null, defaultModelsExpandDepth: 0});
"""
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
_ASSETS = {"swagger-ui.css": "css", "swagger-ui-bundle.js": "js"}


def register_openapi(app: Flask, config: ServerConfig) -> None:
    """Adds /openapi.json and /docs. Pages name no other host, and tell the browser to load nothing from any."""
    text = json_line(document(config))
    folder = _swagger_folder()

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(text, mimetype="application/json")

    @app.get("/docs")
    def docs() -> Response:
        return _page(_PAGE.encode(), "text/html")

    @app.get("/docs/<asset>")
    def docs_asset(asset: str) -> Response:
        if asset == "start.js":
            return _page(_START.encode(), "text/javascript")
        if asset not in _ASSETS:
            abort(404)
        kind = "text/css" if asset.endswith(".css") else "text/javascript"
        return _page((folder / _ASSETS[asset] / asset).read_bytes(), kind)


def _swagger_folder() -> Path:
    """Where the package has Swagger UI's files. It is not imported: its own page has scripts within."""
    spec = find_spec("flask_openapi3_swagger")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "templates" / "swagger"


def _page(data: bytes, kind: str) -> Response:
    return Response(data, mimetype=kind, headers={"Content-Security-Policy": _POLICY})


def document(config: ServerConfig) -> Json:
    """The whole description, as JSON."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    components: Json = {"schemas": definitions["$defs"]}
    described: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "SAM 2.1's automatic mask generator",
            "version": find_version(),
            "description": "Every mask in a photograph, as a picture, as JSON or as arrays.",
        },
        "paths": {**_upload_paths(config), **_status_paths()},
        "components": components,
    }
    if config.api_key_file is not None:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
    return described


def _upload_paths(config: ServerConfig) -> Json:
    return {f"/{endpoint}": {"post": _upload(endpoint, config)} for endpoint in FORMATS}


def _upload(endpoint: str, config: ServerConfig) -> Json:
    formats = FORMATS[endpoint]
    fields = {
        name: _with_default(name, schema, config.generator)
        for name, schema in schemas(model_of(endpoint, config.bounds)).items()
        if name not in APPLIES or set(APPLIES[name]) & set(formats)
    }
    bodies = _batch_bodies(fields) if endpoint == "batch" else _bodies(fields)
    return {
        "operationId": endpoint,
        "summary": _SUMMARIES[endpoint],
        "description": "Each parameter stands in the query or in the body, once. Without it the server's own counts.",
        "parameters": [_in_query(name, schema) for name, schema in fields.items()] + [_in_header("X-Request-ID")],
        "requestBody": {"required": True, "content": bodies},
        "responses": _responses(_answers(endpoint), _UPLOAD_ERRORS),
    }


def _with_default(name: str, schema: Json, own: GeneratorConfig) -> Json:
    """No `default`: clients would send it, and with it contradict other parameters."""
    value = getattr(own, name, None)
    if value is None:
        return schema
    return {**schema, "description": f"{schema['description']} The server's own: {orjson.dumps(value).decode()}."}


def _in_query(name: str, schema: Json) -> Json:
    about = {"name": name, "in": "query", "description": schema["description"]}
    kind = _bare(schema)
    if kind["type"] == "array":
        return {**about, "content": {"application/json": {"schema": kind}}}
    return {**about, "schema": kind}


def _in_header(name: str) -> Json:
    text = "A name of the request: up to 128 letters, digits and -_.:+/=. Another one is replaced."
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def _as_field(schema: Json) -> Json:
    """The schema of a form's field, which is a text."""
    if schema["type"] != "array":
        return schema
    about = {"description": schema["description"], "contentMediaType": "application/json"}
    return {"type": "string", **about, "contentSchema": _bare(schema)}


def _bare(schema: Json) -> Json:
    """What a value must be, without what is said about it."""
    return {key: value for key, value in schema.items() if key not in ("description", "examples")}


def _form(fields: Mapping[str, Json], image: Json) -> Json:
    properties = {"image": image, **{name: _as_field(schema) for name, schema in fields.items()}}
    return {"type": "object", "required": ["image"], "properties": properties, "additionalProperties": False}


def _bodies(fields: Mapping[str, Json]) -> Json:
    image = {"type": "string", "format": "byte", "contentEncoding": "base64", "description": "The file in base64."}
    values = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in fields.items()}
    json = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": image, **values},
        "additionalProperties": False,
    }
    return {
        "multipart/form-data": {"schema": _form(fields, _FILE)},
        "application/json": {"schema": json},
        **{kind: {"schema": _FILE} for kind in _IMAGE_TYPES},
    }


def _batch_bodies(fields: Mapping[str, Json]) -> Json:
    images = {"type": "array", "items": _FILE, "minItems": 1, "description": "Images, or archives of images."}
    form = {"multipart/form-data": {"schema": _form(fields, images)}}
    return form | {kind: {"schema": _FILE} for kind in TYPES}


def _answers(endpoint: str) -> Json:
    """The content of a 200."""
    if endpoint == "batch":
        return {"application/x-ndjson": {"schema": {"type": "string", "description": "Lines, each a Line."}}}
    content: Json = {}
    bodies = [_reference(_BODIES[format]) for format in FORMATS[endpoint] if format in _BODIES]
    if bodies:
        content["application/json"] = {"schema": bodies[0] if len(bodies) == 1 else {"anyOf": bodies}}
    for kind in dict.fromkeys(_FILES[format] for format in FORMATS[endpoint] if format in _FILES):
        content[kind] = {"schema": _FILE}
    return content


def _status_paths() -> Json:
    ids = {"name": "request_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    state = _json_of("RequestState")
    anything = {"application/json": {"schema": {"type": "object"}}}
    asset = {"name": "asset", "in": "path", "required": True, "schema": {"enum": [*_ASSETS, "start.js"]}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"enum": [*page_files()]}}
    kinds = {kind: {"schema": _FILE} for kind in PAGE_TYPES.values()}
    return {
        "/": {"get": _read("home", "The page, for browsers", _text("text/html"))},
        "/page/{name}": {"parameters": [name], "get": _read("page_file", "Files of that page", kinds)},
        "/healthz": {"get": _read("healthz", "Whether the process works", _json_of("Health"))},
        "/readyz": {"get": _read("readyz", "Whether the server takes images", _json_of("Health"))},
        "/info": {"get": _read("info", "Model, mode, parameters, limits, versions", _json_of("Info"))},
        "/metrics": {"get": _read("metrics", "Counters for Prometheus", _text(CONTENT_TYPE))},
        "/requests/{request_id}": {
            "parameters": [ids],
            "get": _read("request_state", "Where a request is", state),
            "delete": _read("cancel_request", "Cancels a request", state),
        },
        "/openapi.json": {"get": _read("openapi", "This description", anything)},
        "/docs": {"get": _read("docs", "This description, to be read", _text("text/html"))},
        "/docs/{asset}": {
            "parameters": [asset],
            "get": _read("docs_asset", "Files of that page", _text("text/css") | _text("text/javascript")),
        },
    }


def _json_of(name: str) -> Json:
    return {"application/json": {"schema": _reference(name)}}


def _text(kind: str) -> Json:
    return {kind: {"schema": {"type": "string"}}}


def _read(name: str, summary: str, content: Json) -> Json:
    return {"operationId": name, "summary": summary, "responses": _responses(content)}


def _responses(content: Json, more_errors: Sequence[int] = ()) -> Json:
    errors = {str(status): _error(status) for status in sorted((*_ANY_ERRORS, *more_errors))}
    return {"200": {"description": "The answer", "content": content}, **errors}


def _error(status: int) -> Json:
    return {"description": HTTPStatus(status).phrase, "content": _json_of("Error")}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
