"""Results as Markdown tables. docs/benchmarks.md shows some of them; `python -m bench.report.docs` copies them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

STAGES = ("decode", "preprocess", "encode", "decoder", "measure", "nms", "rle", "other")
# Memory of GPUs in MiB, as torch reports it, for results that do not have it
_DEVICE_MIB = {"NVIDIA H200": 143155}
STARTUP_SIZES = 60  # of images, in `python -m bench.startup`


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; None becomes a dash."""
    assert all(len(row) == len(header) for row in rows), "a row has another number of cells than the header"
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def _number(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def profile_markdown(profiles: dict[str, dict[str, Any]]) -> str:
    """A table for each system that was profiled."""
    parts = []
    for system, found in profiles.items():
        rows = [
            [f"`{row['name']}`", row["calls"], f"{row['ms']:.2f}", f"{row['ms'] / found['total_ms']:.1%}"]
            for row in found["rows"]
        ]
        parts += [f"{system}, {found['image']}, {found['total_ms']:.1f} ms:", table(["", "calls", "ms", "share"], rows)]
    return "\n\n".join(parts)


def percentile(http: dict[str, Any], q: int) -> float | None:
    """A percentile, where there are requests enough to speak of one: ten for p90, a hundred for p99."""
    return http[f"p{q}"] if q == 50 or http["requests"] * (100 - q) >= 100 else None


def _memory(mib: int | None, host: dict[str, Any]) -> str | None:
    """Memory of a GPU in GiB, and as a share of all it has where that is known: 2.1 GiB (1.5 %)."""
    if mib is None:
        return None
    total = host.get("device_mib") or _DEVICE_MIB.get(host["device"])
    return f"{mib / 1024:.1f} GiB" + (f" ({100 * mib / total:.1f} %)" if total else "")


def published_table(systems: dict[str, Any], host: dict[str, Any]) -> str:
    """The columns of the published table. `host` is what the systems ran on."""
    header = ["mode", "mIoU", "mask count mismatch", "avg. ms per request", "max memory", "batch size"]
    rows = []
    for name, figures in systems.items():
        accuracy = figures.get("accuracy") or {}
        rows.append(
            [
                name,
                _number(accuracy.get("published_miou"), 6),
                accuracy.get("count_mismatches"),
                _number(figures["http"]["1"]["mean"], 1),
                _memory(figures["peak_device_mib"], host),
                figures["batch_size"],
                figures["points_per_batch"],
            ]
        )
    return table([*header, "points per batch"], rows)


def accuracy_table(systems: dict[str, Any]) -> str:
    """Agreement with baseline over all images."""
    header = ["mode", "matched mIoU", "5th percentile", "precision at 0.5 / 0.75 / 0.9", "recall at 0.5 / 0.75 / 0.9"]
    rows = []
    for name, figures in systems.items():
        if accuracy := figures.get("accuracy"):
            shares = [
                " / ".join(_number(value, 4) or "-" for value in accuracy[key].values())
                for key in ("precision", "recall")
            ]
            rows.append([name, _number(accuracy["matched_miou"], 6), _number(accuracy["matched_miou_p5"], 6), *shares])
    return table(header, rows)


def latency_table(systems: dict[str, Any]) -> str:
    """Over HTTP, and at the start. Memory held is what the allocator keeps, those of CUDA graphs included."""
    levels = list(next(iter(systems.values()))["http"])
    header = ["mode", "p50, ms", "p90, ms", "p99, ms", *(f"images/s at {level}" for level in levels)]
    rows = []
    for name, figures in systems.items():
        http, startup = figures["http"], figures["startup_s"]
        one = [_number(percentile(http["1"], q), 1) for q in (50, 90, 99)]
        rates = [_number(http[level]["images_per_second"], 2) for level in levels]
        tail = [_number(startup["cold"], 1), _number(startup["warm"], 1), figures["peak_rss_mib"]]
        tail += [figures["held_device_mib"]]
        rows.append([name, *one, *rates, *tail, figures["recompiles"]])
    return table(
        [*header, "start cold, s", "start warm, s", "peak RSS (MiB)", "GPU memory held (MiB)", "recompiles"], rows
    )


def image_latency_table(systems: dict[str, Any], images: list[str]) -> str:
    """Over HTTP from one client, image by image: the median, milliseconds."""
    rows = [
        [name, *(_number(p50, 1) for p50 in figures["http"]["1"]["p50_by_image"])] for name, figures in systems.items()
    ]
    return table(["mode", *(f"{image}, ms" for image in images)], rows)


def generate_table(systems: dict[str, Any]) -> str:
    """generate() image by image: the median, and in brackets the least and the most."""
    images = [row["image"] for row in next(iter(systems.values()))["generate"]["per_image"]]
    sizes = [row["height_width"] for row in next(iter(systems.values()))["generate"]["per_image"]]
    header = ["mode", *(f"{image} {h} x {w}, ms" for image, (h, w) in zip(images, sizes, strict=True))]
    rows = []
    for name, figures in systems.items():
        cells = []
        for row in figures["generate"]["per_image"]:
            times = row["ms"]
            cells.append(f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})")
        rows.append([name, *cells])
    return table(header, rows)


def server_table(systems: dict[str, Any]) -> str:
    """What a server adds to an image from one client: its p50 less generate() and decoding, each measured alone."""
    rows = []
    for name, figures in systems.items():
        images = figures["generate"]["per_image"]  # the first of those that were asked for
        for image, p50 in zip(images, figures["http"]["1"]["p50_by_image"][: len(images)], strict=True):
            alone = statistics.median(image["ms"]), image["decode_ms"]
            cells = (_number(value, 1) for value in (p50, *alone, p50 - sum(alone)))
            rows.append([name, image["image"], *cells])
    return table(["mode", "image", "p50 of one client, ms", "generate(), ms", "decoding, ms", "the server, ms"], rows)


def stages_table(systems: dict[str, Any]) -> str:
    """Inside generate(), milliseconds; `decode` comes before it."""
    rows = [
        [name, *(_number(figures["generate"]["stages_ms"].get(stage), 1) for stage in STAGES)]
        for name, figures in systems.items()
    ]
    return table(["mode", *STAGES], rows)


def to_markdown(result: dict[str, Any]) -> str:
    """The whole result as a page."""
    systems = result["systems"]
    parts = [f"# {result['what']}: {result['model']} on {result['machine']['device']}", result["summary"]]
    if systems:
        parts += ["## The published table", published_table(systems, result["machine"])]
        if result["what"] == "planted":
            parts += [
                "Planted logits are the same for all: agreement here is that of post-processing alone. They take "
                "memory that no server would, which is not counted."
            ]
        if any(figures.get("accuracy") for figures in systems.values()):
            parts += ["## Agreement with baseline, all images", accuracy_table(systems)]
        parts += ["## Over HTTP", latency_table(systems)]
        few = len(result["images"]) <= 6
        by_image = few and all("p50_by_image" in figures["http"]["1"] for figures in systems.values())
        if by_image:
            parts += ["From one client, p50 image by image:", image_latency_table(systems, result["images"])]
        parts += ["## generate(), from pixels to run lengths in host memory", generate_table(systems)]
        parts += [
            "Where the time goes (medians over images; `measure` is upsampling, stability and boxes: all that sam2's "
            "and torchao's generators do with a batch of points beside network and run lengths; `other` is what no "
            "clock sees, and stages with a dash had none):",
            stages_table(systems),
        ]
        timed = [row for figures in systems.values() for row in figures["generate"]["per_image"]]
        if by_image and all("decode_ms" in row for row in timed):
            parts += ["What the server adds for one client:", server_table(systems)]
    profiles = {name: figures["profile"] for name, figures in systems.items() if "profile" in figures}
    if profiles:
        parts += ["## Kernels of one generate(), by torch's profiler", profile_markdown(profiles)]
    if result["missing"]:
        parts += ["## Not measured", table(["mode", "why"], list(result["missing"].items()))]
    return "\n\n".join(parts) + "\n"


def startup_markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    header = [
        "start",
        "ready after, s",
        "first request, ms",
        "median, ms",
        "slowest, ms",
        "slowest / median",
        "compiled",
    ]
    rows = []
    for name, row in result["rows"].items():
        ms = row["ms"]
        ratio = f"{ms['slowest'] / ms['median']:.2f}"
        rows.append(
            [name, f"{row['ready_s']:.1f}", ms["first"], ms["median"], ms["slowest"], ratio, row["compilations"]]
        )
    host = result["machine"]
    first = next(iter(result["rows"].values()))
    seconds = result["export_s"]
    made = "Packages could not be made." if seconds is None else f"Making the packages took {seconds} s."
    return (
        f"# Starts: {result['model']} on {host['device']}\n\n"
        f"Made by `{result['command']}`: {host['device']}, {host['cores']} CPU cores, torch {host['torch']}, Python "
        f"{host['python']}. From the start of the process to 200 from /readyz, the checkpoint in the page cache; then "
        f"{first['requests']} requests to /upload_rle, one after the other, of images of {STARTUP_SIZES} sizes "
        f"from 64 to 1600 pixels a side, {result['points_per_side']}^2 points; weights: "
        f"{result['weights']}. {made}\n\n"
        f"{table(header, rows)}\n\n"
        f"Seconds until ready:\n\n{_phases(result['rows'])}\n"
    )


def _phases(rows: dict[str, dict[str, Any]]) -> str:
    """A line for each start: what the server did before it was ready, as /readyz said."""

    def line(name: str, seconds: dict[str, float]) -> str:
        return f"- {name}: " + ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items())

    return "\n".join(line(name, row["phases_s"]) for name, row in rows.items())


def _launch_name(launch: dict[str, int]) -> str:
    parts = f", {launch['PARTS']} parts" if "PARTS" in launch else ""
    stages = f", {launch['num_stages']} stages" if launch.get("num_stages", 1) > 1 else ""
    return f"tiles of {launch['BLOCK']}, {launch['num_warps']} warps{parts}{stages}"


def techniques_markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    header = ["technique", "instead", "generate() without it, ms", "it saves, ms"]
    own, *without = result["rows"]
    rows = [
        [row["technique"], row["instead"], f"{row['median_ms']:.1f}", f"{row['median_ms'] - own['median_ms']:.1f}"]
        for row in without
    ]
    host = result["machine"]
    planted = ", decoder outputs planted" if result["weights"] == "seeded" else ""
    return (
        f"# Techniques of furious, each switched off alone: {result['model']} on {host['device']}\n\n"
        f"Made by `{result['command']}`: {host['device']}, torch {host['torch']}; "
        f"weights: {result['weights']}{planted}; "
        f"{result['image']}. With all of them generate() takes {own['median_ms']:.1f} ms; medians of {len(own['ms'])} "
        f"rounds, in each of which all had a turn.\n\n"
        f"{table(header, rows)}\n"
    )


def kernels_markdown(result: dict[str, Any]) -> str:
    """The result as a page: what ships beside the best that was tried, then everything that was tried."""
    shipped = {(row["kernel"], row["form"]): row["ms"] for row in result["rows"] if row["launch"] is None}
    tried = [row for row in result["rows"] if row["launch"] is not None]
    rows: list[list[Any]] = []
    for (kernel, form), milliseconds in shipped.items():
        fitting = [row for row in tried if (row["kernel"], row["form"]) == (kernel, form) and row["ms"] is not None]
        best = min(fitting, key=lambda row: row["ms"], default=None)
        name, least = (_launch_name(best["launch"]), best["ms"]) if best else (None, None)
        rows.append([kernel, form, _number(milliseconds, 3), name, _number(least, 3)])
    everything = [[row["kernel"], row["form"], _launch_name(row["launch"]), _number(row["ms"], 3)] for row in tried]
    host = result["machine"]
    return (
        f"# Kernels: {result['model']} on {host['device']}\n\n"
        f"Made by `{result['command']}`: {host['device']}, torch {host['torch']}, Python {host['python']}. Median "
        f"milliseconds; {result['points']} points in the decoder, 4,096 image tokens.\n\n"
        f"{table(['kernel', 'form', 'as it ships, ms', 'best launch', 'ms'], rows)}\n\n"
        "Launch configurations that were tried; a dash is for those that do not fit the GPU:\n\n"
        f"{table(['kernel', 'form', 'launch', 'ms'], everything)}\n"
    )


def accuracy_markdown(result: dict[str, Any]) -> str:
    """The result as a page: for each set of images what differs, how far masks agree, and where counts differ."""
    parts = [f"# {result['what']}: {result['model']} on {result['machine']['device']}", result["summary"]]
    for name, found in result["sets"].items():
        if "accuracy" not in found:
            continue
        figures = {system: {"accuracy": accuracy} for system, accuracy in found["accuracy"].items()}
        parts += [f"## {name.capitalize()}: agreement with baseline, all images"]
        parts += [counts_table(found), accuracy_table(figures)]
        if len(set(found["sources"])) < len(found["images"]):
            parts += ["Images with another mask count than baseline, by photograph:", sources_table(found)]
    if result["missing"]:
        parts += ["## Not measured", table(["mode", "why"], list(result["missing"].items()))]
    return "\n\n".join(parts) + "\n"


def _differing(found: dict[str, Any], system: str) -> list[str]:
    """What the images are of in which a system finds another number of masks than baseline, an entry an image."""
    counts = zip(found["sources"], found["counts"]["baseline"], found["counts"][system], strict=True)
    return [source for source, expected, count in counts if count != expected]


def counts_table(found: dict[str, Any]) -> str:
    """How many images, and how many photographs, have another number of masks than in baseline."""
    header = ["mode", "images", "other mask count", "share", "photographs", "with another count in a crop"]
    several = len(set(found["sources"])) < len(found["images"])
    rows = []
    for system in found["accuracy"]:
        differing, images = _differing(found, system), len(found["images"])
        row = [system, images, len(differing), f"{len(differing) / images:.1%}"]
        rows.append([*row, *([len(set(found["sources"])), len(set(differing))] if several else [])])
    return table(header[: len(rows[0])], rows)


def sources_table(found: dict[str, Any]) -> str:
    """The same photograph by photograph, with the masks that baseline finds in all its crops."""
    systems = [system for system in found["accuracy"] if system != "baseline"]
    differing = {system: Counter(_differing(found, system)) for system in systems}
    crops, masks = Counter(found["sources"]), Counter[str]()
    for source, count in zip(found["sources"], found["counts"]["baseline"], strict=True):
        masks[source] += count
    rows = [
        [source, crops[source], masks[source], *(differing[system][source] for system in systems)] for source in crops
    ]
    return table(["photograph", "crops", "masks in baseline", *systems], rows)


def soak_markdown(result: dict[str, Any]) -> str:
    """The result as a page: what was seen, beside what is demanded."""
    row, host = result["rows"][0], result["machine"]
    statuses = ", ".join(f"{count} x {status}" for status, count in row["statuses"].items())
    bad = ", ".join(f"{name} {count}" for name, count in row["bad_clients"].items())
    rows = [
        ["answers that differ from the first one", row["wrong"], 0],
        ["open descriptors before and after", " / ".join(map(str, row["descriptors"])), "no more"],
        [
            "growth of memory (PSS, server and decoders) after the third minute, MiB a minute",
            row["growth_mib_a_minute"],
            "below 1",
        ],
        ["p99 of good requests without and with bad clients, ms", " / ".join(map(str, row["p99_ms"])), "at most twice"],
        ["p50 of the same, ms", " / ".join(map(str, row["p50_ms"])), None],
        [
            "memory at the start, at the end, at most, MiB",
            " / ".join(map(str, [*row["memory_mib"], row["peak_memory_mib"]])),
            None,
        ],
        ["good requests, by status", statuses, None],
    ]
    verdict = "; ".join(result["faults"]) or "All that is demanded held."
    return (
        f"# Soak: good and bad clients at once, {result['model']} on {host['device']}\n\n"
        f"Made by `{result['command']}`: {host['device']}, {host['cores']} CPU cores, torch {host['torch']}, Python "
        f"{host['python']}; `{result['server']}`, mode {result['mode']}; {result['minutes']:g} minutes, the first "
        f"fifth without bad clients. Attacks, by kind: {bad}.\n\n{verdict}\n\n"
        f"{table(['what', 'seen', 'demanded'], rows)}\n"
    )


def decibels_markdown(db: dict[str, float | None]) -> list[str]:
    """Cells of a table."""
    return ["equal" if value is None else f"{value:.1f}" for value in db.values()]


def numerics_markdown(result: dict[str, Any]) -> str:
    """The rows as a page."""
    header = ["size", "mode", *(f"{name}, dB" for name in result["rows"][0]["db"])]
    rows = [[row["size"], row["mode"], *decibels_markdown(row["db"])] for row in result["rows"]]
    host = result["machine"]
    return (
        f"# Signal-to-noise ratio against float32 baseline, seeded weights, {host['device']}\n\n"
        f"Made by `{result['command']}` with torch {host['torch']}; one drawn scene, 36 points.\n\n"
        f"{table(header, rows)}\n"
    )


def _made_by(result: dict[str, Any]) -> str:
    """How a program that measures one model was run."""
    host = result["machine"]
    return f"Made by `{result['command']}` with torch {host['torch']} on {host['device']}; weights: {result['weights']}"


def float8_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.float8` as a page."""
    header = ["layers in float8", "of the work", *(f"{name}, dB" for name in result["rows"][0]["db"])]
    rows = [[row["layers"], f"{row['share']:.0%}", *decibels_markdown(row["db"])] for row in result["rows"]]
    return (
        f"# Linear layers of the image encoder in float8, the rest in float32: {result['model']}\n\n"
        f"{_made_by(result)}; "
        f"one drawn scene, 36 points. Work is multiplications in the linear layers of the trunk's blocks.\n\n"
        f"{table(header, rows)}\n"
    )


def noise_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.noise` as a page."""
    header = ["in float16", "predicted IoU, 1e-5", "stability, 1e-5", "low-res logits, dB"]
    rows = [
        [
            row["group"],
            *(f"{row[name] * 1e5:.1f}" for name in ("predicted_iou", "stability")),
            "equal" if row["logits_db"] is None else f"{row['logits_db']:.1f}",
        ]
        for row in result["rows"]
    ]
    return (
        f"# Where rounding errors of float16 come from: {result['model']}\n\n"
        f"{_made_by(result)}; "
        f"{result['points']} points on each of {len(result['crops'])} crops of photographs. A row rounds to float16 "
        f"in some places; the rest is float32. Rows that begin with furious have that mode's places. Errors of "
        f"predicted IoU and stability are root mean squares over masks with a predicted IoU over 0.6.\n\n"
        f"{table(header, rows)}\n"
    )


def decisions_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.decisions` as a page."""
    rows = [[row["mode"], *_count_cells(row), *_error_cells(row)] for row in result["rows"]]
    return (
        f"# Scores beside float32's, and decisions that turn: {result['model']}\n\n"
        f"{_made_by(result)}; crops: {', '.join(result['crops'])}. Uncompiled modes beside ao. {_COUNTED}\n\n"
        f"{table(['mode', *_COUNTS, *_ERRORS], rows)}\n"
    )


def trade_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.trade` as a page."""
    (own,) = (row["median_ms"] for row in result["rows"] if row["form"] == "furious")
    forms = sorted(result["rows"], key=lambda row: row["median_ms"])
    costs = [
        [row["form"], f"{row['median_ms']:.1f}", f"{row['median_ms'] - own:+.1f}", *_count_cells(row)] for row in forms
    ]
    errors = [[row["form"], *_error_cells(row)] for row in forms]
    return (
        f"# Agreement and time of furious, more and less exact: {result['model']}\n\n"
        f"{_made_by(result)}. Agreement on crops of photographs, uncompiled, beside ao. {_COUNTED} generate() is "
        f"that of {result['timed']} on truck.jpg, compiled, seeded weights, planted masks.\n\n"
        f"{table(['form', 'generate(), ms', 'more than furious', *_COUNTS], costs)}\n"
        f"\n{table(['form', *_ERRORS], errors)}\n"
        + (f"\nNot measured: {', '.join(missing)}.\n" if (missing := result["missing"]) else "")
    )


_COUNTED = "Predicted IoU counts from 0.1 below the threshold, stability where predicted IoU passes it."
_COUNTS = ["images", "other mask count", "matched mIoU"]
_ERRORS = [
    *("predicted IoU: mean error, 1e-5", "masks", "decisions turned"),
    *("stability: mean error, 1e-5", "masks", "decisions turned"),
]


def _count_cells(row: dict[str, Any]) -> list[object]:
    """What is under _COUNTS."""
    return [row["images"], row["count_mismatches"], f"{row['matched_miou']:.6f}"]


def _error_cells(row: dict[str, Any]) -> list[object]:
    """What is under _ERRORS."""
    return [cell for score in ("predicted_iou", "stability") for cell in _score_cells(row[score])]


def _score_cells(score: dict[str, Any]) -> list[object]:
    return ["-" if score["error"] is None else f"{score['error'] * 1e5:.3f}", score["masks"], score["turned"]]


def page_hover_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.page_hover` as a page."""
    header = ["the pointer moves", "moves", "masks lit", "handler: p50, ms", "p99, ms", "most, ms"]
    header += ["redraw: p50, ms", "p99, ms", "most, ms"]
    rows = [
        [
            row["pointer"],
            row["moves"],
            row["lit"],
            *(f"{row[kind][name]:.1f}" for kind in ("handlers", "frames") for name in ("p50", "p99", "most")),
        ]
        for row in result["rows"]
    ]
    host, demanded = result["machine"], result["demanded_ms"]
    width, height = result["width_height"]
    return (
        f"# The page under a moving pointer: {result['masks']} masks on {width * height / 1e6:.0f} megapixels\n\n"
        f"Made by `{result['command']}` on {host['device']}, {host['cores']} cores, headless chromium "
        f"{result['chromium']}, a window of {' x '.join(map(str, result['viewport']))}. The handler is all that "
        f"listeners do with an event: demanded are less than {demanded['p50']:g} ms at the median and "
        f"{demanded['p99']:g} ms at p99. The redraw is what the page's code draws in the "
        f"frame after it.\n\n{table(header, rows)}\n"
    )


def decoding_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.decoding` as a page."""
    header = [
        "JPEG, pixels",
        "kB",
        "in process, ms",
        "decoder process, ms",
        "more, ms",
        "least: in process",
        "decoder process",
    ]
    rows = [
        [
            "{} x {}".format(*row["width_height"]),
            round(row["bytes"] / 1000),
            *(f"{row[name]:.1f}" for name in ("in_process", "pool", "extra", "least_in_process", "least_pool")),
        ]
        for row in result["rows"]
    ]
    host = result["machine"]
    return (
        "# Decoding in the process that asks, and in a process of its own\n\n"
        f"Made by `{result['command']}` on {host['device']}, {host['cores']} cores. Medians of "
        f"{result['rows'][0]['repeats']}, both in turn; `more` is the median of the differences.\n\n"
        f"{table(header, rows)}\n"
    )


def formats_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.formats` as a page."""
    header = ["format", "images/s", "of rle's", "p50, ms", "p99, ms", "kB an answer"]
    rows = [
        [row["format"], f"{row['images_per_second']:.1f}", f"{row['ratio']:.3f}", row["p50"], row["p99"], row["kb"]]
        for row in result["rows"]
    ]
    host = result["machine"]
    return (
        f"# Images a second by format of the answer: {result['model']}, {host['device']}\n\n"
        f"Made by `{result['command']}`: {host['device']}, {host['cores']} CPU cores, torch {host['torch']}, Python "
        f"{host['python']}; mode {result['mode']}, {result['clients']} clients, {result['requests']} requests a round. "
        f"One server answers all formats in turn, {result['rounds']} rounds; figures are medians of the rounds, and "
        f"ratios are within a round.\n\n{table(header, rows)}\n"
    )


def batch_markdown(result: dict[str, Any]) -> str:
    """The rows of `bench.batch` as a page."""
    rows, host = result["rows"], result["machine"]
    made = (
        f"Made by `{result['command']}`: {host['device']}, {host['cores']} CPU cores, torch {host['torch']}, Python "
        f"{host['python']}; mode {result['mode']}.\n\n"
    )
    if "bytes_an_image" in rows[0]:
        header = ["what", "images/s", "memory grows by, bytes an image", "resident at the end, MiB"]
        cells = [[row["what"], *list(row.values())[1:]] for row in rows]
        return f"# Memory of a batch job: {result['model']}, {host['device']}\n\n{made}{table(header, cells)}\n"
    header = ["what", "images/s", "of generate()'s"]
    cells = [[row["what"], f"{row['images_per_second']:.2f}", f"{row['ratio']:.3f}"] for row in rows]
    return f"# Speed of a batch job: {result['model']}, {host['device']}\n\n{made}{table(header, cells)}\n"
