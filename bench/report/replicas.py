"""Pages and plots of what is measured with replicas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.tables import table


def front_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.front` as a page."""
    header = ["answers are made", "clients", "images/s", "p50, ms", "CPU of the front an image, ms", "least of a round"]
    rows = [
        [
            f"in {row['replicas']} replicas" if row["replicas"] else "in the front, without Ray",
            row["clients"],
            f"{row['images_per_second']:.0f}",
            f"{row['p50']:.2f}",
            f"{row['cpu_ms_an_image']:.2f}",
            f"{row['least_cpu_ms_an_image']:.2f}",
        ]
        for row in result["rows"]
    ]
    alone, busy, lone_alone, lone = result["rows"]
    spent, most = busy["cpu_ms_an_image"], result["demanded_cpu_ms"]
    host = result["machine"]
    return (
        f"# What the HTTP front costs with replicas, {host['device']}\n\n"
        f"Made by `{result['command']}`: {host['device']}, {host['cores']} CPU cores, Python {host['python']}. A JPEG "
        f"of {result['bytes'] / 1000:.0f} kB by multipart form to /upload_rle, an answer of 30 kB that is ready at "
        "once, connections that stay open. CPU time is that of the front's process, all its threads. Clients and "
        f"replicas run on the same cores. Medians of {len(busy['rounds'])} rounds, in each of which all had a turn.\n\n"
        f"{table(header, rows)}\n\n"
        f"The hand-over takes {busy['cpu_ms_an_image'] - alone['cpu_ms_an_image']:.2f} ms of CPU an image from "
        f"{busy['clients']} clients, and {lone['p50'] - lone_alone['p50']:.2f} ms of a lone request. Demanded are at "
        f"most {most} ms of CPU an image: {'held' if spent <= most else 'not held'} ({spent:.2f} ms).\n"
    )


def name_of(count: int) -> str:
    """Of a row with so many replicas."""
    return "without Ray" if count == 0 else f"{count} replica{'s' * (count > 1)}"


def scale_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.scale` as a page."""
    host, rows = result["machine"], result["rows"]
    planted = ", decoder outputs planted" if result["planted"] else ""
    made = (
        f"Made by `{result['command']}`: {host['device']}, {host['cores']} CPU cores, torch {host['torch']}, Python "
        f"{host['python']}; mode {result['mode']}, {result['points_per_side']} x {result['points_per_side']} points; "
        f"weights: {result['weights']}{planted}. "
    )
    title = f"{result['model']}, {host['device']}"
    lines = "".join(f"\n- {each}" for each in result["verdict"])
    verdict = f"\n\nDemanded:\n{lines}" if lines else ""
    missing = result["missing"]
    left = f"\n\n## Not measured\n\n{table(['replicas', 'why'], list(missing.items()))}" if missing else ""
    if result["what"].startswith("scale-batch"):
        header = ["", "images/s", "times one device"]
        cells = [[name_of(row["replicas"]), f"{row['images_per_second']:.2f}", _times(row)] for row in rows]
        how = "The rate is that of the second half of the job without its last shards: all devices should be at work."
        return f"# Batch jobs by number of replicas: {title}\n\n{made}{how}\n\n{table(header, cells)}{verdict}{left}\n"
    header = ["", "clients", "images/s", "times one device", "p50, ms", "p99, ms", "of one client: p50, ms"]
    header += ["CPU of the front, cores", "CPU of the front an image, ms", "all ready after, s"]
    cells = [
        [
            name_of(row["replicas"]),
            row["clients"],
            f"{row['images_per_second']:.2f}",
            _times(row),
            f"{row['p50']:.1f}",
            f"{row['p99']:.1f}",
            f"{row['one_client']['p50']:.1f}" if row["one_client"] else None,
            f"{row['cpu_share']:.2f}",
            f"{row['cpu_ms_an_image']:.2f}",
            f"{row['ready_s']:.0f}",
        ]
        for row in rows
    ]
    enlarged = ", and truck.jpg at 3.4 megapixels," if result["enlarged"] else ""
    how = (
        f"The real server, over HTTP; {result['clients']} clients a replica send the sample photographs{enlarged} in "
        f"turn. Medians of {result['rounds']} rounds of {result['seconds']:g} s. Times one device: times the faster of "
        "the rows with one. Without Ray the front's process makes the masks, too."
    )
    return f"# Speed by number of replicas: {title}\n\n{made}{how}\n\n{table(header, cells)}{verdict}{left}\n"


def _times(row: dict[str, Any]) -> str | None:
    return None if row["times"] is None else f"{row['times']:.2f}"


def draw_scale(result: dict[str, Any], path: Path) -> None:
    """Writes a PNG: images a second by number of replicas, dashed what one device times N would be; of a server also
    latency."""
    rows = [row for row in result["rows"] if row["replicas"]]
    counts = [row["replicas"] for row in rows]
    is_server = result["what"] == "scale"
    figure = Figure(figsize=(11 if is_server else 5.5, 4.4), layout="constrained")
    kind = "replicas" if is_server else "batch job"
    figure.suptitle(f"{kind}: {result['model']} on {result['machine']['device']}")
    rates = figure.add_subplot(1, 1 + is_server, 1)
    rates.plot(counts, [row["images_per_second"] for row in rows], "o-", color="C0", label="replicas")
    if counts and counts[0] == 1:
        one = rows[0]["images_per_second"]
        rates.plot(counts, [one * count for count in counts], "--", color="C7", label="one replica, times N")
    for row in result["rows"]:
        if row["replicas"] == 0:
            rates.plot([1], [row["images_per_second"]], "x", color="C1", label="without Ray")
    rates.set(title="Images a second", xlabel="replicas", xticks=counts)
    rates.set_ylim(bottom=0)
    rates.legend(fontsize="small")
    if is_server:
        _draw_latency(figure.add_subplot(1, 2, 2), rows, counts, result["clients"])
    figure.savefig(path, dpi=80)


def _draw_latency(axes: Axes, rows: Sequence[dict[str, Any]], counts: Sequence[int], clients: int) -> None:
    for key, style in (("p50", "o-"), ("p99", "x:")):
        axes.plot(counts, [row[key] for row in rows], style, color="C0", label=f"{key}, busy")
    axes.set(title=f"Latency, {clients} clients a replica", xlabel="replicas", ylabel="ms", xticks=counts)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
