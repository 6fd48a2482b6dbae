"""The same results for people who would rather look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.tables import STAGES, percentile

_COLOURS = [f"C{index}" for index in range(10)]  # matplotlib's own cycle


def _draw_stages(axes: Axes, systems: dict[str, Any]) -> None:
    left = [0.0] * len(systems)
    names = list(systems)
    for colour, stage in zip(_COLOURS, STAGES, strict=False):
        widths = [figures["generate"]["stages_ms"].get(stage, 0.0) for figures in systems.values()]
        axes.barh(names, widths, left=left, label=stage, color=colour)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(title="A request without HTTP, by stage", xlabel="ms")
    _add_legend(axes)


def _add_legend(axes: Axes) -> None:
    """Below the panel; none where nothing is drawn, as accuracy without baseline."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _draw_accuracy(axes: Axes, systems: dict[str, Any]) -> None:
    for colour, (name, figures) in zip(_COLOURS, systems.items(), strict=False):
        if accuracy := figures.get("accuracy"):
            axes.scatter(figures["http"]["1"]["p50"], accuracy["matched_miou"], color=colour, label=name)
    axes.set(title="Accuracy against speed", xlabel="p50 of a request, ms", ylabel="matched mIoU, all images")
    axes.set_xlim(left=0)
    lowest = min(
        (figures["accuracy"]["matched_miou"] for figures in systems.values() if "accuracy" in figures), default=1
    )
    axes.set_ylim(min(0.99, lowest - 0.005), 1.002)
    _add_legend(axes)


def _draw_concurrency(axes: Axes, systems: dict[str, Any]) -> None:
    for colour, (name, figures) in zip(_COLOURS, systems.items(), strict=False):
        levels = [int(level) for level in figures["http"]]
        for q, style in ((50, "o-"), (99, "x:")):
            values = [value for http in figures["http"].values() if (value := percentile(http, q)) is not None]
            if len(values) == len(levels):
                axes.plot(levels, values, style, color=colour, label=f"{name} p{q}")
    axes.set(title="Latency under concurrency", xlabel="clients", ylabel="ms", xscale="log", yscale="log")
    axes.set_xticks(levels, labels=[str(level) for level in levels])
    axes.minorticks_off()
    _add_legend(axes)


def draw(result: dict[str, Any], path: Path) -> None:
    """Writes a PNG with three panels: stages, accuracy against speed, latency under concurrency."""
    figure = Figure(figsize=(16, 5.4), layout="constrained")
    figure.suptitle(f"{result['what']}: {result['model']} on {result['machine']['device']}")
    stages, accuracy, concurrency = figure.subplots(1, 3)
    _draw_stages(stages, result["systems"])
    _draw_accuracy(accuracy, result["systems"])
    _draw_concurrency(concurrency, result["systems"])
    figure.savefig(path, dpi=80)


def draw_trade(result: dict[str, Any], path: Path) -> None:
    """Writes a PNG: images with another mask count, and matched mIoU, against milliseconds of generate()."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    figure.suptitle(f"agreement of {result['model']}, time of {result['timed']} on {result['machine']['device']}")
    rows = sorted(result["rows"], key=lambda row: row["median_ms"])
    shares = [100 * row["count_mismatches"] / row["images"] for row in rows]
    panels = (("images with another mask count, %", shares), ("matched mIoU", [row["matched_miou"] for row in rows]))
    for axes, (label, values) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot([row["median_ms"] for row in rows], values, color="0.8", zorder=0)
        for colour, row, value in zip(_COLOURS, rows, values, strict=False):
            axes.scatter(row["median_ms"], value, color=colour, label=row["form"])
        axes.set(xlabel="generate() on truck.jpg, ms", ylabel=label)
        axes.set_xlim(left=0)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=80)
