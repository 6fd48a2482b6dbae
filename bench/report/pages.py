"""Results as files: figures in JSON, a page in Markdown, and plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness.machine import stem_of
from bench.report.plots import draw, draw_trade
from bench.report.replicas import draw_scale, front_markdown, scale_markdown
from bench.report.tables import (
    accuracy_markdown,
    batch_markdown,
    decisions_markdown,
    decoding_markdown,
    float8_markdown,
    formats_markdown,
    kernels_markdown,
    noise_markdown,
    numerics_markdown,
    page_hover_markdown,
    soak_markdown,
    startup_markdown,
    techniques_markdown,
    to_markdown,
    trade_markdown,
)

_PAGES = {
    "numerics": numerics_markdown,
    "accuracy": accuracy_markdown,
    "startup": startup_markdown,
    "kernels": kernels_markdown,
    "techniques": techniques_markdown,
    "float8": float8_markdown,
    "noise": noise_markdown,
    "decisions": decisions_markdown,
    "trade": trade_markdown,
    "soak": soak_markdown,
    "decoding": decoding_markdown,
    "formats": formats_markdown,
    "batch": batch_markdown,
    "front": front_markdown,
    "scale": scale_markdown,
    "page": page_hover_markdown,
}


_PLOTS: dict[str, Callable[[dict[str, Any], Path], None]] = {"scale": draw_scale, "trade": draw_trade}


def page_of(result: dict[str, Any]) -> str:
    """The Markdown of a result."""
    return _PAGES.get(_kind_of(result), to_markdown)(result)


def _kind_of(result: dict[str, Any]) -> str:
    return str(result["what"]).split("-")[0]


def write(result: dict[str, Any], folder: Path) -> None:
    """Writes JSON, Markdown and, where something was measured, plots. Nothing measured never replaces a result."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / stem_of(result)
    if not (result.get("systems") or result.get("rows")) and Path(f"{stem}.json").exists():
        print(f"Nothing was measured ({result['missing']}); {stem}.json stays as it is.", file=sys.stderr)
        return
    Path(f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    page = page_of(result)
    Path(f"{stem}.md").write_text(page)
    plot = _PLOTS.get(_kind_of(result), draw if result.get("systems") and result["what"] != "accuracy" else None)
    if plot is not None:
        plot(result, Path(f"{stem}.png"))
    print(page)
    print(f"Written: {stem}.json and .md", file=sys.stderr)
