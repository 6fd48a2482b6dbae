"""How every claim of this project is made.

python -m bench                                          the demo model on 20 drawn scenes, baseline and ao
python -m bench checkpoints large --images paths.txt     a checkpoint on your own photographs
python -m bench --model_type large --weights seeded --planted --images sam2_amg/demo/photographs
                                                         a size without its checkpoint, with planted masks
python -m bench --accuracy --modes baseline fast --shards 4
                                                         agreement over photographs and scenes, nothing timed
python -m bench --numerics                               signal-to-noise ratios, without masks
python -m bench --again results/modes-demo-....json      the tables again, from lists (planted ones are not kept)
python -m bench --draw_only                              the scenes alone, to be carried to another machine
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from bench import RESULTS
from bench.accuracy import add_agreement, find_sets, measure_accuracy, summarise
from bench.harness.arguments import job_of
from bench.harness.images import VERSION, draw_scenes
from bench.harness.interrupts import interruptible
from bench.harness.lists import find_list
from bench.harness.machine import machine, stem_of
from bench.harness.run import Plan, measure_all
from bench.harness.systems import SYSTEMS
from bench.harness.weights import add_device, add_model, check_device, choose_model
from bench.numerics import measure_numerics
from bench.report.pages import write
from sam2_amg.agreement.lists import UnusableList, compare
from sam2_amg.config import require_batch_size
from sam2_amg.errors import StartupError
from sam2_amg.network.model_types import MODEL_TYPES


def add_accuracy(result: dict[str, Any], lists: Path) -> None:
    """Compares every list that is kept with baseline's. Raises UnusableList."""
    if "sets" in result:
        add_agreement(result, lists)
    elif "baseline" in result.get("systems", {}):
        for name, figures in result["systems"].items():
            figures["accuracy"] = compare(find_list(lists, "baseline"), find_list(lists, name))


def measure(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """Runs the systems that the command line names."""
    sets = find_sets(args)
    images = [path for paths in sets.values() for path in paths]
    result: dict[str, Any] = {
        "what": name_of(args),
        "model": args.model_type,
        "command": command,
        "machine": machine(args.device),
        "weights": args.weights,
    }
    lists = args.out / "lists" / stem_of(result)
    job = job_of(
        args,
        "",
        images,
        repeats=args.repeats,
        startup_only=False,
        profile=args.profile,
        batch_size=args.batch_size,
    )
    if args.accuracy:
        result |= measure_accuracy(args, job, sets, lists)
        result["summary"] = summarise(result, args)
    else:
        result["images"] = [path.name for path in images]
        timed, caches = args.generate_images or len(images), args.caches.resolve() if args.caches else None
        plan = Plan(job, args.concurrency, args.requests, timed, lists, args.one_start, caches)
        result["systems"], result["missing"] = measure_all(args.modes, plan)
        result["summary"] = summary(result, args)
        add_accuracy(result, lists)
    return result


def name_of(args: argparse.Namespace) -> str:
    """What is measured, in a word that begins the names of results: peers alone never replace our own figures."""
    if args.accuracy:
        return "accuracy"
    if all(SYSTEMS[name].mode is None for name in args.modes):
        return "peers"
    name = "planted" if args.planted else "modes" if args.weights == "checkpoint" else "seeded"
    return name if args.batch_size == 1 else f"{name}-together{args.batch_size}"


def summary(result: dict[str, Any], args: argparse.Namespace) -> str:
    """How it was measured, in words."""
    host = result["machine"]
    source = str(args.images) if args.images else f"{len(result['images'])} drawn scenes, 480 x 360 to 1920 x 1080"
    starts = "a start with empty compile caches, " + ("" if args.one_start else "a second start, ")
    if args.caches:
        starts = "one start, with the compile caches of earlier ones where there are any, "
    count = args.batch_size
    together = f" Up to {count} images that wait at the same time are encoded together" if count > 1 else ""
    together += ", of which one client and generate() know nothing." if together else ""
    planted = ", decoder outputs planted (the network runs in full)" if args.planted else ""
    return (
        f"Made by `{result['command']}`: {host['device']}, {host['cores']} CPU cores, torch {host['torch']}, Python "
        f"{host['python']}. Weights: {args.weights}{planted}. Images: {source}; {args.points_per_side}^2 points. Each "
        f"mode runs in a process of its own, one after the other in the table's order, on the same images: {starts}"
        f"one image to warm up, all images in turn until there are {args.requests} requests or more, at each "
        f"concurrency, and then generate() {args.repeats} times an image without HTTP. Times over HTTP are of "
        f"/upload_rle.{together}"
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m bench`."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    names = "; ".join(f"{system.name}: {system.what}" for system in SYSTEMS.values())
    parser.add_argument("--modes", nargs="+", choices=SYSTEMS, default=["baseline", "ao"], metavar="MODE", help=names)
    parser.add_argument(
        "--images",
        type=Path,
        help="a folder, or a file with a path a line; default: drawn scenes, "
        "and with --accuracy crops of photographs, too",
    )
    parser.add_argument(
        "--enlarged", action="store_true", help="with --images: truck.jpg at 3.4 megapixels, 1.1 MB, behind them"
    )
    parser.add_argument("--scenes", type=int, default=20, help="how many scenes to draw (default %(default)s)")
    folder = RESULTS / f"scenes-{VERSION}"
    parser.add_argument("--scenes_folder", type=Path, default=folder, help="where they are drawn, or have been drawn")
    parser.add_argument("--draw_only", action="store_true", help="draw the scenes, and no more")
    parser.add_argument("--planted", action="store_true", help="plant decoder outputs")
    add_device(parser)
    parser.add_argument("--points_per_side", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=1, help="images that a mode may encode together (default 1)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16], help="clients; 1 is always first")
    parser.add_argument("--requests", type=int, default=16, help="at each concurrency, at least (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of generate(), an image (default %(default)s)")
    parser.add_argument("--generate_images", type=int, help="time generate() on the first N images only")
    parser.add_argument("--one_start", action="store_true", help="start each mode once, with empty compile caches")
    parser.add_argument(
        "--caches", type=Path, help="folder of compile caches to start with and to keep; then each mode starts once"
    )
    parser.add_argument("--profile", action="store_true", help="list the kernels of generate() on the largest image")
    parser.add_argument("--numerics", action="store_true", help="signal-to-noise ratios of every size, seeded weights")
    parser.add_argument("--accuracy", action="store_true", help="agreement alone: every mode at once, nothing is timed")
    parser.add_argument(
        "--shards",
        type=int,
        default=1,
        help="with --accuracy: processes of each mode that does not compile (default %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    parser.add_argument("--again", type=Path, metavar="RESULT", help="make the tables of a result again")
    return parser


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends with a line on what does not fit together."""
    choose_model(parser, args)
    check_device(parser, args)
    if args.again and not args.again.is_file():
        parser.error(f"--again {args.again}: there is no such file")
    if min(args.scenes, args.repeats, args.points_per_side, args.shards, args.requests, *args.concurrency) < 1:
        names = "--scenes, --repeats, --points_per_side, --shards, --requests and --concurrency"
        parser.error(f"{names} must be at least 1")
    if args.enlarged and not args.images:
        parser.error("--enlarged adds a photograph to those of --images: give --images, too")
    if args.caches and args.accuracy:
        parser.error("--accuracy times nothing, so --caches is of no use to it: leave it out")
    if args.caches and args.one_start:
        parser.error("--one_start is for empty compile caches, and --caches brings others: leave one of them out")
    if args.accuracy and args.batch_size > 1:
        parser.error("--accuracy asks for one image at a time, so --batch_size changes nothing: leave it out")
    try:
        require_batch_size(args.batch_size)
    except StartupError as error:
        parser.error(str(error))


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status: 1 where something that was asked for is missing."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    check(parser, args)
    args.concurrency = [1, *(level for level in args.concurrency if level != 1)]
    command = shlex.join(["python", "-m", "bench", *arguments])
    if args.draw_only:
        draw_scenes(args.scenes, args.scenes_folder)
        return 0
    if args.again:
        result = json.loads(args.again.read_text())
        try:
            add_accuracy(result, args.again.parent / "lists" / args.again.stem)
        except UnusableList as error:
            parser.error(f"--again needs the lists of that run: {error}")
    elif args.numerics:
        sizes = [name for name in MODEL_TYPES if name != "demo"]
        rows = measure_numerics(sizes, torch.device(args.device))
        result = {"what": "numerics", "model": "seeded", "command": command, "machine": machine(args.device)}
        result["rows"] = rows
    else:
        result = measure(args, command)
    write(result, args.out)
    return int(bool(result.get("missing")))


if __name__ == "__main__":
    with interruptible():
        sys.exit(main(sys.argv[1:]))
