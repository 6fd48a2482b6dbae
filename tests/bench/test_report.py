"""Results as tables."""

from __future__ import annotations

import json

from bench.report.docs import tables_of
from bench.report.tables import published_table, techniques_markdown


def test_the_page_of_techniques_says_what_each_saves() -> None:
    rows = [
        {"technique": "furious", "instead": "", "median_ms": 21.0, "ms": [21.0]},
        {"technique": "quick", "instead": "slow", "median_ms": 30.25, "ms": [30.25]},
    ]
    host = {"device": "a GPU", "torch": "2"}
    result = {"model": "large", "command": "c", "machine": host, "weights": "seeded", "image": "i", "rows": rows}
    assert "| quick | slow | 30.2 | 9.2 |" in techniques_markdown(json.loads(json.dumps(result)))


def test_tables_of_a_page_are_found_in_order() -> None:
    page = "# Title\n\n| a |\n| --- |\n| 1 |\n\ntext\n\n| b |\n| --- |\n| 2 |\n"
    assert tables_of(page) == ["| a |\n| --- |\n| 1 |", "| b |\n| --- |\n| 2 |"]


def test_memory_is_a_share_of_the_card_where_that_is_known() -> None:
    figures = {"http": {"1": {"mean": 20.0}}, "peak_device_mib": 2150, "batch_size": 1, "points_per_batch": 64}
    systems = {"ao": figures, "on a CPU": {**figures, "peak_device_mib": None}}

    def cells(host: dict[str, object]) -> list[str]:
        return [line.split(" | ")[4] for line in published_table(systems, host).splitlines()]

    assert cells({"device": "a GPU", "device_mib": 81_000}) == ["max memory", "---", "2.1 GiB (2.7 %)", "-"]
    assert cells({"device": "NVIDIA H200"}) == ["max memory", "---", "2.1 GiB (1.5 %)", "-"]
    assert cells({"device": "a GPU"}) == ["max memory", "---", "2.1 GiB", "-"]
    assert cells({"device": "a GPU", "device_mib": None}) == ["max memory", "---", "2.1 GiB", "-"]
