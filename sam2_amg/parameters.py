"""The parameters of a request, wherever they come from -> configuration, filters, options, format.

A query, a form and a command line have texts, and JSON has values; `read_texts` and `read_values` make `Parameters` of
them. What is not given stays None, and gets its value from the server's configuration when `Parameters` are resolved.
The models describe themselves as JSON schemas, from which /openapi.json and the messages of refusals are made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, create_model

from sam2_amg.answers.filters import Filters
from sam2_amg.answers.options import Counts, Options, Style
from sam2_amg.config import Bounds, GeneratorConfig
from sam2_amg.decoding.stretch import Stretch
from sam2_amg.errors import ParameterError

Format = Literal["rle", "records", "coco", "polygons", "labelmap", "npz", "png"]

_Whole = Annotated[int, Strict()]
_Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
_Switch = Annotated[bool, Strict()]
_Fraction = Annotated[_Number, Field(ge=0, le=1)]
_Pixels = Annotated[_Number, Field(ge=0)]
_Point = tuple[_Pixels, _Pixels]
_GridPoint = tuple[_Fraction, _Fraction]

APPLIES: dict[str, tuple[Format, ...]] = {
    "counts": ("rle", "records", "coco"),
    "tolerance": ("polygons",),
    "style": ("png",),
    "opacity": ("png",),
    "ids": ("png",),
}
"""The formats to which an option applies."""
OF_GENERATOR = tuple(field.name for field in fields(GeneratorConfig) if field.name != "mask_memory_mib")
"""The parameters that are fields of GeneratorConfig."""

_LONGEST = 60  # characters of what is wrong that a message repeats
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_WHOLE_TEXT = re.compile(r"([+-]?[0-9]{1,18})(\.0{1,18})?", re.ASCII)
_NUMBER_TEXT = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,4})?", re.ASCII)


class UnknownParameter(ParameterError):
    """There is no parameter of this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name, f"does not exist. Known parameters: {', '.join(known)}")


class Parameters(BaseModel):
    """What a request may ask for. Lists come as JSON in a text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Format | None = Field(default=None, description="Format of the answer; without it Accept chooses.")
    counts: Counts | None = Field(default=None, description="Run lengths as COCO's string, or as a list.")
    tolerance: Annotated[_Number, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Pixels by which polygons may deviate from the edges of masks."
    )
    style: Style | None = Field(default=None, description="How the overlay shows masks.")
    opacity: _Fraction | None = Field(default=None, description="Opacity of the overlay's colours.")
    ids: _Switch | None = Field(default=None, description="Writes the number of each mask on it.")
    stretch: Stretch | None = Field(default=None, description="Scales the samples of dark pictures to 0 to 255.")
    points_per_side: Annotated[_Whole, Field(ge=1, le=256)] | None = Field(
        default=None, description="Points along each side of the grid."
    )
    points_per_batch: Annotated[_Whole, Field(ge=1, le=1 << 20)] | None = Field(
        default=None, description="Points decoded at a time, at most the server's. It does not change the answer."
    )
    pred_iou_thresh: _Fraction | None = Field(default=None, description="Least predicted IoU of a mask.")
    stability_score_thresh: _Fraction | None = Field(default=None, description="Least stability score of a mask.")
    stability_score_offset: Annotated[_Number, Field(ge=0, le=100)] | None = Field(
        default=None, description="Shift of the mask threshold, up and down, for the stability score."
    )
    mask_threshold: Annotated[_Number, Field(ge=-100, le=100)] | None = Field(
        default=None, description="Logit above which a pixel belongs to a mask."
    )
    box_nms_thresh: _Fraction | None = Field(
        default=None, description="Of two masks whose boxes overlap by more than this IoU, the worse is dropped."
    )
    crop_n_layers: Annotated[_Whole, Field(ge=0, le=4)] | None = Field(
        default=None, description="Layers of crops to search besides the whole image."
    )
    crop_nms_thresh: _Fraction | None = Field(default=None, description="The same as box_nms_thresh, between crops.")
    crop_overlap_ratio: Annotated[_Number, Field(ge=0, lt=1)] | None = Field(
        default=None, description="Overlap of the crops, as a fraction of the image's side."
    )
    crop_n_points_downscale_factor: Annotated[_Whole, Field(ge=1, le=256)] | None = Field(
        default=None, description="Each crop layer divides the points per side by it again."
    )
    min_mask_region_area: Annotated[_Whole, Field(ge=0, le=1 << 30)] | None = Field(
        default=None, description="Holes and islands of fewer pixels are filled and dropped."
    )
    use_m2m: _Switch | None = Field(default=None, description="Decodes each mask again, with itself as a prompt.")
    multimask_output: _Switch | None = Field(default=None, description="Three masks a point, instead of one.")
    point_grids: (
        Annotated[
            list[Annotated[list[_GridPoint], Field(min_length=1, max_length=1 << 16)]],
            Field(min_length=1, max_length=5),
        ]
        | None
    ) = Field(
        default=None,
        description="Grids of points (x, y) from 0 to 1, one a crop layer, the whole image's first. Instead of "
        "points_per_side.",
        examples=["[[[0.5,0.5],[0.25,0.75]]]"],
    )
    points: Annotated[list[_Point], Field(min_length=1, max_length=1 << 16)] | None = Field(
        default=None,
        description="Points (x, y) in pixels of the upright photograph, instead of a grid. Without crops.",
        examples=["[[120,80],[300.5,210]]"],
    )
    min_mask_area: Annotated[_Whole, Field(ge=1, le=1 << 30)] | None = Field(
        default=None, description="Drops masks of fewer pixels."
    )
    max_mask_area: Annotated[_Whole, Field(ge=1, le=1 << 30)] | None = Field(
        default=None, description="Drops masks of more pixels."
    )
    mask_nms_thresh: _Fraction | None = Field(
        default=None,
        description="Of two masks whose pixels overlap by more than this IoU, the worse is dropped.",
    )
    max_masks: Annotated[_Whole, Field(ge=1, le=1 << 30)] | None = Field(
        default=None, description="Keeps as many masks."
    )
    disjoint: _Switch | None = Field(default=None, description="Gives each pixel to one mask at most, the smallest.")

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that have a value."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    def filters(self) -> Filters:
        """Which masks the answer has."""
        return Filters(
            self.min_mask_area, self.max_mask_area, self.mask_nms_thresh, self.max_masks, bool(self.disjoint)
        )

    def options(self, format: str) -> Options:
        """How the answer is made in this format. Raises ParameterError for an option that does not apply to it."""
        for name, formats in APPLIES.items():
            if getattr(self, name) is not None and format not in formats:
                raise ParameterError(name, f"does not apply to the format {format}; it does to {_listed(formats)}")
        return Options(self.counts, self.tolerance or 0.0, self.style, self.opacity, bool(self.ids))

    def check(self, own: GeneratorConfig) -> None:
        """Raises ParameterError if the parameters contradict each other, or the generator's `own`.

        All is checked but whether `points` lie within the image.
        """
        for one, other in (
            ("points", "point_grids"),
            ("points", "points_per_side"),
            ("point_grids", "points_per_side"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ParameterError(one, f"takes the place of {other}; leave one of them out")
        if self.points is not None and self.crop_n_layers:
            raise ParameterError("points", f"has no crops, but crop_n_layers is {self.crop_n_layers}; leave one out")
        if (self.min_mask_area or 0) > (self.max_mask_area or math.inf):
            raise ParameterError("min_mask_area", f"is over max_mask_area ({self.max_mask_area}); lower it")
        replace(own, **self._of_generator())

    def config(self, own: GeneratorConfig, size: tuple[int, int]) -> GeneratorConfig | None:
        """The generator's parameters for an image of `size` (height, width); None if all are its `own`.

        Imports torch where `points` are given. Raises ParameterError as `check` does, and for points outside the image.
        """
        values = self._of_generator()
        if self.points is not None:
            from sam2_amg.pipeline.prompts import grids_of_points

            values |= {"point_grids": grids_of_points(self.points, size), "crop_n_layers": 0}
        return replace(own, **values) if values else None

    def _of_generator(self) -> dict[str, Any]:
        values = {name: value for name, value in self.given.items() if name in OF_GENERATOR}
        if self.point_grids is not None:
            values["point_grids"] = tuple(map(tuple, self.point_grids))
        elif self.points_per_side is not None:
            values["point_grids"] = None
        return values


NAMES = tuple(Parameters.model_fields)
Model = TypeVar("Model", bound=Parameters)


@lru_cache(maxsize=64)
def bounded(bounds: Bounds, formats: tuple[Format, ...] = get_args(Format)) -> type[Parameters]:
    """The model of a server's requests: `Parameters` within its limits, and with these formats.

    With one format there is no parameter `format`. Options of other formats stay known, so that they are refused with
    the name of the format.
    """
    most = bounds.most_points
    layers = bounds.max_crop_n_layers
    narrowed: dict[str, Any] = {
        "points_per_side": Annotated[_Whole, Field(ge=1, le=bounds.max_points_per_side)],
        "crop_n_layers": Annotated[_Whole, Field(ge=0, le=layers)],
        "point_grids": Annotated[
            list[Annotated[list[_GridPoint], Field(min_length=1, max_length=most)]],
            Field(min_length=1, max_length=layers + 1),
        ],
        "points": Annotated[list[_Point], Field(min_length=1, max_length=most)],
    }
    changes: dict[str, Any] = {
        name: (kind | None, _field_like(Parameters.model_fields[name])) for name, kind in narrowed.items()
    }
    if len(formats) == 1:
        changes["format"] = (None, None)
    else:
        changes["format"] = (Literal[formats] | None, _field_like(Parameters.model_fields["format"]))
    return create_model("Parameters", __base__=Parameters, __doc__=Parameters.__doc__, **changes)


def _field_like(field: Any) -> Any:
    return Field(default=None, description=field.description, examples=field.examples)


@lru_cache(maxsize=64)
def schemas(model: type[Parameters]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each parameter's value, with its description. None, which stands for no value, is left out."""
    properties = model.model_json_schema()["properties"]
    return {name: schema for name, property in properties.items() if (schema := _valued(property)) is not None}


def _valued(property: dict[str, Any]) -> dict[str, Any] | None:
    kinds = [kind for kind in property.get("anyOf", []) if kind != {"type": "null"}]
    if not kinds:
        return None
    about = {key: property[key] for key in ("description", "examples") if key in property}
    return {**kinds[0], **about}


def need_of(schema: Mapping[str, Any]) -> str:
    """What a value must be: "a whole number from 1 to 64"."""
    if "enum" in schema:
        return _listed(schema["enum"])
    if schema["type"] == "boolean":
        return "true or false (1 or 0)"
    if schema["type"] in ("integer", "number"):
        name = "a whole number" if schema["type"] == "integer" else "a number"
        if "exclusiveMaximum" in schema:
            return f"{name} of at least {schema['minimum']:g} and less than {schema['exclusiveMaximum']:g}"
        return f"{name} from {_plain(schema['minimum'])} to {_plain(schema['maximum'])}"
    points = schema["items"] if schema["items"]["type"] == "array" and "maxItems" in schema["items"] else schema
    if points is schema or "prefixItems" in points:
        return f"JSON [[x, y], ...] of 1 to {schema['maxItems']} points with x and y of at least 0"
    grids = "1 grid" if schema["maxItems"] == 1 else f"1 to {schema['maxItems']} grids"
    return f"JSON [[[x, y], ...], ...] of {grids} of 1 to {points['maxItems']} points from 0 to 1"


def most_values(schema: Mapping[str, Any]) -> int:
    """How many commas and opening brackets the JSON of a value has at most."""
    if schema["type"] != "array":
        return 1
    inner = schema.get("items", {"type": "number"})
    return 1 + int(schema["maxItems"]) * (1 + most_values(inner))


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def read_texts(pairs: Iterable[tuple[str, str]], model: type[Model]) -> Model:
    """Parameters from names and texts, as a query, a form or a command line has them.

    Raises ParameterError for values that are not allowed and for names that come twice, UnknownParameter for others.
    """
    known = schemas(model)
    texts: dict[str, str] = {}
    for name, text in pairs:
        if name not in known:
            raise UnknownParameter(name, known)
        if name in texts:
            raise ParameterError(name, "comes more than once; send it once")
        texts[name] = text
    return _validated({name: _value_of(text, known[name]) for name, text in texts.items()}, texts, model)


def read_values(values: Mapping[str, Any], model: type[Model]) -> Model:
    """Parameters from names and values of JSON. None stands for no value. Raises as `read_texts` does."""
    known = schemas(model)
    for name in values:
        if name not in known:
            raise UnknownParameter(name, known)
    return _validated({name: _as_whole(value) for name, value in values.items()}, values, model)


def merged(first: Model, second: Model) -> Model:
    """The parameters of two places of a request. Raises ParameterError for one that stands in both."""
    both = first.given.keys() & second.given.keys()
    if both:
        raise ParameterError(min(both), "stands in the query and in the body; send it once")
    return first.model_copy(update=second.given)


def _validated(values: Mapping[str, Any], sent: Mapping[str, Any], model: type[Model]) -> Model:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_context=False)[0]["loc"][0])
        raise ParameterError(name, f"must be {need_of(schemas(model)[name])}, not {_as_sent(sent[name])}") from error


def _as_whole(value: Any) -> Any:
    """JSON knows no difference between 8 and 8.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_sent(value: Any) -> str:
    return shown(value if isinstance(value, str) else orjson.dumps(value).decode())


def _value_of(text: str, schema: Mapping[str, Any]) -> Any:
    """The value that a text stands for; the text itself if it stands for none of this kind."""
    kind = schema["type"]
    if kind == "boolean":
        return _BOOLEANS.get(text, text)
    if kind == "integer":
        whole = _WHOLE_TEXT.fullmatch(text)
        return int(whole[1]) if whole else text
    if kind == "number":
        return float(text) if _NUMBER_TEXT.fullmatch(text) else text
    if kind == "array" and text.count(",") + text.count("[") <= most_values(schema):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def shown(text: str) -> str:
    """What a client sent, as a message repeats it: quoted, in printable characters, not at length."""
    return ascii(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")
