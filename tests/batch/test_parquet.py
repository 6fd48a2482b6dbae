"""Parquet files of the batch job, read by pyarrow, pandas and DuckDB."""

from __future__ import annotations

import gc
import io
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from batch_results import NOT_UTF8, SETTINGS, WriteOnly, result_of, shard, written

from sam2_amg.batch.items import Problem
from sam2_amg.batch.outputs import parquet
from sam2_amg.batch.outputs.parquet import schema
from sam2_amg.batch.outputs.table import OUTPUTS
from sam2_amg.errors import StartupError

RESULTS = shard()


def text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("parquet") / "shard.parquet"
    path.write_bytes(written("parquet", RESULTS))
    return path


def test_pyarrow_reads_rows_back(path: Path) -> None:
    table = pq.read_table(path)
    assert table.schema.equals(schema())
    for row, result in zip(table.to_pylist(), RESULTS, strict=True):
        height, width = result.size or (None, None)
        failed = isinstance(result.found, Problem)
        expected: dict[str, Any] = {
            "image": text(result.name),
            "image_bytes": b"caf\xe9/\xff.jpg" if result.name == NOT_UTF8 else None,
            "width": width,
            "height": height,
            "sha256": result.sha256,
            "settings": SETTINGS,
            "ms": list(result.milliseconds.items()),
            "masks": None if failed else result.found,
            "error": None,
        }
        if isinstance(result.found, Problem):
            expected["error"] = {"code": result.found.code, "message": text(result.found.message)}
        assert row == expected


def test_pandas_reads_it(path: Path) -> None:
    frame = pd.read_parquet(path)
    assert frame["image"].tolist() == [text(result.name) for result in RESULTS]
    counts = [None if isinstance(result.found, Problem) else len(result.found) for result in RESULTS]
    assert [None if masks is None else len(masks) for masks in frame["masks"]] == counts
    assert frame["masks"][0][0]["segmentation"]["counts"] == RESULTS[0].found[0]["segmentation"]["counts"]  # type: ignore[index]


def test_duckdb_asks_it(path: Path) -> None:
    query = f"""
        select image, sum(mask.area), max(mask.segmentation.size[2]), any_value(ms['a'])
        from (select image, ms, unnest(masks) as mask from '{path}') group by image order by image
    """
    found = {
        text(result.name): (sum(record["area"] for record in result.found), result.size[1], 1.5)
        for result in RESULTS
        if not isinstance(result.found, Problem) and result.found and result.size
    }
    with duckdb.connect() as database:
        assert {name: rest for name, *rest in map(tuple, database.execute(query).fetchall())} == {
            name: list(rest) for name, rest in found.items()
        }
        failed = database.execute(f"select error.code from '{path}' where masks is null").fetchall()
    assert failed == [("truncated_image",), ("timeout",)]


def test_a_file_without_images() -> None:
    table = pq.read_table(io.BytesIO(written("parquet", [])))
    assert len(table) == 0
    assert table.schema.equals(schema())


def test_row_groups_are_bounded_and_handed_on() -> None:
    output, stream = OUTPUTS["parquet"], WriteOnly()
    writer = output.begin(stream, SETTINGS)
    encoded = output.encode(result_of("a.jpg", 2))
    lengths = []
    for _ in range(250):
        writer.add(encoded)
        lengths.append(len(stream.taken()))
    writer.finish()
    assert len(np.unique(lengths[:99])) == len(np.unique(lengths[99:199])) == 1
    assert lengths[98] < lengths[99] < lengths[199] < len(stream.taken())
    file = pq.ParquetFile(io.BytesIO(stream.taken()))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 50]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.read()["image"].to_pylist() == ["a.jpg"] * 250


def test_large_rows_make_smaller_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = OUTPUTS["parquet"].encode(result_of("a.jpg"))
    monkeypatch.setattr(parquet, "_BYTES", 3 * encoded.nbytes - 1)
    file = pq.ParquetFile(io.BytesIO(written("parquet", [result_of("a.jpg")] * 5)))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 2]


def test_a_file_that_is_given_up_writes_nothing_more() -> None:
    stream = WriteOnly()
    writer = OUTPUTS["parquet"].begin(stream, SETTINGS)
    writer.add(OUTPUTS["parquet"].encode(result_of("a.jpg")))
    stream.close()
    del writer
    gc.collect()  # a write to the closed stream would be a warning, which fails


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(StartupError, match=r'pip install "sam2-amg-server\[parquet\]"'):
        OUTPUTS["parquet"].begin(io.BytesIO(), SETTINGS)
