"""Agreement of systems with baseline over many images; nothing is timed: `python -m bench --accuracy`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.harness.accuracy import Collector
from bench.harness.images import draw_scenes, find_images
from bench.harness.lists import count_masks, find_list, keep_list
from bench.harness.photographs import enlarge_truck, listed_photographs, make_crops
from bench.harness.worker import Job
from sam2_amg.agreement.lists import compare

# a name -> its images, each with what it is a crop of
Sets = dict[str, dict[Path, str]]


def find_sets(args: argparse.Namespace) -> Sets:
    """The images to ask for: those that the command line names, or drawn scenes, before which --accuracy has crops."""
    if args.images:
        paths = [*find_images(args.images), *([enlarge_truck()] if args.enlarged else [])]
        return {"images": {path: path.stem for path in paths}}
    scenes = {"drawn scenes": {path: path.stem for path in draw_scenes(args.scenes, args.scenes_folder)}}
    return {"photographs": make_crops(listed_photographs())} | scenes if args.accuracy else scenes


def measure_accuracy(args: argparse.Namespace, job: Job, sets: Sets, lists: Path) -> dict[str, Any]:
    """Asks all systems for all images, and compares each with baseline: what a result has of it."""
    paths = [path for images in sets.values() for path in images]
    collector = Collector(args.modes, job, args.shards)
    collector.run()
    names, answered = collector.answered()
    found: dict[str, Any] = {"systems": names, "missing": collector.missing, "sets": {}}
    for name, images in sets.items():
        places = [index for index in answered if paths[index] in images]
        if not places:
            continue
        found["sets"][name] = {
            "images": [paths[index].name for index in places],
            "sources": [images[paths[index]] for index in places],
        }
        for system in names:
            keep_list(folder_of(lists, name), system, [collector.answers[system][index] for index in places])
    add_agreement(found, lists)
    return found


def folder_of(lists: Path, name: str) -> Path:
    """Where the answers of a set of images are kept."""
    return lists / name.replace(" ", "-")


def add_agreement(result: dict[str, Any], lists: Path) -> None:
    """Compares every list that is kept with baseline's. Raises UnusableList."""
    for name, found in result["sets"].items():
        kept = {system: find_list(folder_of(lists, name), system) for system in result["systems"]}
        found["counts"] = {system: count_masks(path) for system, path in kept.items()}
        if "baseline" in kept:
            found["accuracy"] = {system: compare(kept["baseline"], path) for system, path in kept.items()}


def summarise(result: dict[str, Any], args: argparse.Namespace) -> str:
    """What was compared, in words."""
    host = result["machine"]
    sets = [f"{len(found['images'])} {name}" for name, found in result["sets"].items()]
    if "photographs" in result["sets"]:
        sources = len(set(result["sets"]["photographs"]["sources"]))
        sets[0] = f"{len(result['sets']['photographs']['images'])} crops of {sources} photographs"
        sets[0] += " (`bench/photographs.toml`)"
    return (
        f"Made by `{result['command']}`: {host['device']}, torch {host['torch']}, Python {host['python']}. Weights: "
        f"{args.weights}. Images: {', '.join(sets)}; {args.points_per_side}^2 points. All systems answered each of "
        f"these images once over HTTP. They ran at the same time, those that do not compile in {args.shards} processes "
        "each, so nothing is timed."
    )
