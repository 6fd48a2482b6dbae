"""`parquet`: a row an image.

| column | type | what it is |
| --- | --- | --- |
| `image` | string | the name; bytes that are not UTF-8 are written as `\\udc80` to `\\udcff` |
| `image_bytes` | binary | the exact name if it is not UTF-8, else null |
| `width`, `height` | int32 | of the upright image; null if it could not be decoded |
| `sha256` | string | of the file's bytes, in hexadecimal; empty if they could not be read |
| `settings` | string | the settings' hash |
| `ms` | map<string, double> | milliseconds by stage |
| `masks` | list<struct> | sam2's records; null if the image failed |
| `masks[].segmentation` | struct<size: list<int32>, counts: string> | COCO's compressed RLE; size is height, width |
| `masks[].area` | int64 | pixels |
| `masks[].bbox`, `masks[].crop_box` | list<double> | x, y, width, height |
| `masks[].predicted_iou`, `masks[].stability_score` | double | |
| `masks[].point_coords` | list<list<double>> | x, y of each point |
| `error` | struct<code: string, message: string> | why there are no masks; else null |

pyarrow is imported when it is first used.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from sam2_amg.batch.items import Problem, Result
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.rows import row_of
from sam2_amg.errors import StartupError

_ROWS = 100  # of a row group
_BYTES = 32 * 2**20  # of a row group's masks, before compression


def require_pyarrow() -> Any:
    """The module. Raises StartupError if it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        message = f'--format parquet needs pyarrow ({error}); install it: pip install "sam2-amg-server[parquet]"'
        raise StartupError(message) from error
    return pyarrow


def schema() -> Any:
    """The columns, as a pyarrow.Schema."""
    pa = require_pyarrow()
    box = pa.list_(pa.float64())
    mask = {
        "segmentation": pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()}),
        "area": pa.int64(),
        "bbox": box,
        "predicted_iou": pa.float64(),
        "point_coords": pa.list_(pa.list_(pa.float64())),
        "stability_score": pa.float64(),
        "crop_box": box,
    }
    return pa.schema(
        {
            "image": pa.string(),
            "image_bytes": pa.binary(),
            "width": pa.int32(),
            "height": pa.int32(),
            "sha256": pa.string(),
            "settings": pa.string(),
            "ms": pa.map_(pa.string(), pa.float64()),
            "masks": pa.list_(pa.struct(mask)),
            "error": pa.struct({"code": pa.string(), "message": pa.string()}),
        }
    )


def _text(text: str) -> str:
    """A string that is UTF-8: lone surrogates are escaped."""
    return text.encode(errors="backslashreplace").decode()


def encode(result: Result) -> Any:
    """A pyarrow.RecordBatch of one row, with empty settings."""
    pa = require_pyarrow()
    name, text = result.name, _text(result.name)
    row = {
        **row_of(result),
        "image": text,
        "image_bytes": None if text == name else name.encode(errors="surrogateescape"),
        "ms": list(result.milliseconds.items()),
    }
    if isinstance(result.found, Problem):
        row["error"] = {"code": result.found.code, "message": _text(result.found.message)}
    else:
        row["masks"] = result.found
    return pa.RecordBatch.from_pylist([row], schema())


class Writer:
    """Writes a row group for each 100 rows, or 32 MiB of them."""

    def __init__(self, stream: BinaryIO, settings: str) -> None:
        pa = require_pyarrow()
        self._stream = stream
        self._settings = settings
        self._rows: list[Any] = []
        self._bytes = 0
        # pyarrow ends a file that is given up, too. What it writes then stays in memory.
        self._buffer = io.BytesIO()
        self._writer = pa.parquet.ParquetWriter(self._buffer, schema(), compression="zstd")

    def add(self, encoded: Any) -> None:
        """Holds a row until there are enough for a row group."""
        self._rows.append(encoded)
        self._bytes += encoded.nbytes
        if len(self._rows) == _ROWS or self._bytes >= _BYTES:
            self._write_group()

    def finish(self) -> None:
        """Writes the last rows and the footer."""
        if self._rows:
            self._write_group()
        self._writer.close()
        self._flush()

    def _write_group(self) -> None:
        pa = require_pyarrow()
        table = pa.Table.from_batches(self._rows)
        column = table.schema.get_field_index("settings")
        settings = pa.array([self._settings] * len(table), pa.string())
        self._writer.write_table(table.set_column(column, "settings", settings), row_group_size=len(table))
        self._rows, self._bytes = [], 0
        self._flush()

    def _flush(self) -> None:
        """Hands on what the writer has written."""
        self._stream.write(self._buffer.getvalue())
        self._buffer.seek(0)
        self._buffer.truncate()


PARQUET = Output(".parquet", encode, Writer, require=require_pyarrow)
