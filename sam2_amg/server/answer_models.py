"""What answers look like, for /openapi.json. The answers themselves are not checked by these models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

Whole = Annotated[int, Field(ge=0)]
Box = Annotated[list[float], Field(min_length=4, max_length=4, description="x, y, width, height")]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Cause(_Answer):
    """What is wrong: a code for programs, a message for people."""

    code: str
    message: str


class Error(_Answer):
    """The body of every error."""

    error: Cause


class RunLengths(_Answer):
    """A mask, column by column, background first: COCO's run lengths, as a list or as its string."""

    size: Annotated[list[Whole], Field(min_length=2, max_length=2, description="height, width")]
    counts: list[Whole] | str


class Rles(RootModel[dict[str, RunLengths]]):
    """mask_0, mask_1 and so on, in the order of the records."""


class _Scores(_Answer):
    area: Whole
    bbox: Box
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: Box


class Record(_Scores):
    """A mask as sam2's generator describes it."""

    segmentation: RunLengths


class Records(RootModel[list[Record]]):
    """Highest predicted IoU first; with crops, smallest crops first."""


class Polygons(_Scores):
    """A record with COCO's polygons x, y, x, y and so on."""

    segmentation: list[list[float]]


class PolygonRecords(RootModel[list[Polygons]]):
    """The records, with polygons."""


class Annotation(_Scores):
    """An annotation of COCO's format, with the scores of the record."""

    id: int
    image_id: int
    category_id: int
    segmentation: RunLengths
    iscrowd: Literal[0]


class CocoDocument(_Answer):
    """A document of COCO's object detection format."""

    info: dict[str, Any]
    licenses: list[Any]
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[Annotation]


class Health(_Answer):
    """The server is well."""

    status: Literal["ok", "ready"]


class RequestState(_Answer):
    """Where a request is."""

    id: str
    state: Literal["received", "decoding", "queued", "segmenting", "rendering", "done", "cancelled"]
    place: Whole | None = Field(description="Images before it, while it is queued.")
    seconds_since: dict[str, float]


class Line(_Answer):
    """A line of /batch: the answer of one image, or its error."""

    index: Whole
    name: str
    masks: Rles | Records | PolygonRecords | CocoDocument | None = None
    error: Cause | None = None


class Info(BaseModel):
    """The model, the mode, the generator's parameters, limits and versions."""

    model: str
    mode: str
    device: str
    ready: bool
    parameters: dict[str, Any]
    limits: dict[str, Any]
    queue: dict[str, int]
    versions: dict[str, str]


MODELS: tuple[type[BaseModel], ...] = (
    Error,
    Rles,
    Records,
    PolygonRecords,
    CocoDocument,
    Health,
    RequestState,
    Line,
    Info,
)
