"""The command line: what it makes of its arguments, and how it refuses."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import ROOT

from sam2_amg.cli import compare, export
from sam2_amg.cli.arguments import path_of
from sam2_amg.cli.batch import parse as parse_batch
from sam2_amg.cli.main import COMMANDS
from sam2_amg.cli.serve import build_parser, parse
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import StartupError
from sam2_amg.server.listen import bind, listening

ON_OFF = {
    f"--{'' if on else 'no_'}{name}": {name: on} for name in ("use_m2m", "multimask_output") for on in (True, False)
}


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_no_arguments_serve_the_demo_model() -> None:
    config = parse([])
    assert (config.model.checkpoint_dir, config.model.model_type, config.model.mode) == (DEMO_DIR, "demo", Mode.AO)
    assert (config.host, config.port) == ("127.0.0.1", 5000)
    assert config.generator.points_per_side == 32


def test_official_types_have_sam2s_defaults() -> None:
    config = parse(["checkpoints", "large", "--baseline", "--port", "8000", "--host", "0.0.0.0"])
    assert config.model.checkpoint_dir == Path("checkpoints")
    assert (config.model.model_type, config.model.mode) == ("large", Mode.BASELINE)
    assert config.generator == GeneratorConfig()
    assert (config.host, config.port) == ("0.0.0.0", 8000)


@pytest.mark.parametrize("flags", [[], ["--fast"], ["--fast", "--load_exported", "packages"]], ids=" ".join)
def test_the_batch_size_of_the_published_table(flags: list[str]) -> None:
    assert parse([*flags, "--batch_size", "16"]).model.batch_size == 16
    exported = export.parse(["--fast", "--device", "cpu", "--output", "nowhere", "--batch_size", "16"])
    assert exported.batch_size == 16


def test_a_tilde_is_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell has it that does not find it in quotes, for every path of every command line."""
    monkeypatch.setenv("HOME", "/home/somebody")
    home = Path("/home/somebody")
    config = parse(["~/check points", "large", "--fast", "--load_exported", "~/packages", "--compile_cache=~/cache"])
    assert config.model.checkpoint_dir == home / "check points"
    assert (config.model.load_exported, config.compile_cache) == (home / "packages", home / "cache")
    assert parse(["--api_key_file", "~"]).api_key_file == home
    exported = export.parse(["~/checkpoints", "large", "--fast", "--device", "cpu", "--output", "~/packages"])
    assert (exported.checkpoint_dir, exported.output) == (home / "checkpoints", home / "packages")
    compared = compare.build_parser().parse(["~/a", "b~/~", "--json", "~/figures"])
    assert (compared.a, compared.b, compared.json) == (home / "a", Path("b~/~"), home / "figures")
    for parser in (build_parser(), export.build_parser(), compare.build_parser()):
        assert not [action.dest for action in parser._actions if action.type is Path]
    assert path_of("~nobody.of.this.name/a") == Path("~nobody.of.this.name/a")


def test_every_long_flag_with_underscores_and_with_hyphens() -> None:
    flags = [flag for action in build_parser()._actions for flag in action.option_strings if "_" in flag]
    assert len(flags) >= 12
    for flag in flags:
        value = "0.5" if re.search("thresh|ratio|offset|timeout|delay", flag) else "2"
        others = {"--max_held_mib": "2000", "--log_format": "json", "--max_points_per_side": "200"}
        others |= {"--cors_origin": "https://example.org"}
        value = others.get(flag, value)
        needed = {"--load_exported": ["--fast"], "--ray_address": ["--replicas", "2", "--device", "cpu"]}
        mode = needed.get(flag, [])
        if flag in ON_OFF:
            generators = [parse([name]).generator for name in (flag, flag.replace("_", "-"))]
            assert generators == [replace(GeneratorConfig(), **ON_OFF[flag])] * 2
            continue
        expected = parse([*mode, flag, value])
        assert expected != parse(mode)
        assert parse([*mode, flag.replace("_", "-"), value]) == expected
        assert parse([*mode, f"{flag.replace('_', '-')}={value}"]) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "--fast"], "--baseline contradicts --fast"),
        (["--baseline", "--furious"], "--baseline contradicts --fast and --furious"),
        (["--furious"], "--furious needs --fast"),
        (["--fast", "--furious", "--device", "cpu"], "--fast --furious needs a CUDA GPU, but the device is cpu; give"),
        (["--load_exported", "packages"], "--load_exported needs --fast: mode ao has no packages"),
        (["checkpoints"], "CHECKPOINT_DIR needs a MODEL_TYPE"),
        (["checkpoints", "huge"], "MODEL_TYPE 'huge' is unknown; choose one of tiny, small, plus, large, demo"),
        (["--points_per_side", "0"], "--points_per_side must be from 1 to 256, not 0"),
        (["--points_per_side", "many"], "argument --points_per_side: invalid int value: 'many'"),
        (["--points_per_batch", "0"], "--points_per_batch must be from 1 to"),
        (["--pred_iou_thresh", "2"], "--pred_iou_thresh must be from 0 to 1"),
        (["--min_mask_region_area", "-1"], "--min_mask_region_area must be from 0 to"),
        (["--use_m2m", "1", "2", "3"], "unrecognized arguments: 3"),
        (["--crop_n_layers", "3", "--crop_n_points_downscale_factor", "9"], "--crop_n_points_downscale_factor"),
        (
            ["--max_points_per_side", "31"],
            "--max_points_per_side must be from 32, the server's own points_per_side, to",
        ),
        (["--max_crop_n_layers", "5"], "--max_crop_n_layers must be from 0"),
        (["--max_pixels", "999999999"], "--max_pixels must be from 1 to"),
        (["--receive_timeout", "0"], "--receive_timeout must be more than 0 and at most 86400 seconds"),
        (["--drain_timeout", "-1"], "--drain_timeout must be from 0 to 86400 seconds"),
        (["--max_held_mib", "63"], "--max_held_mib must be at least --max_body_mib"),
        (["--request_timeout", "inf"], "--request_timeout must be more than 0 and at most 86400 seconds"),
        (["--stuck_timeout", "0"], "--stuck_timeout must be more than 0 and at most 86400 seconds"),
        (["--drain_delay", "inf"], "--drain_delay must be from 0 to 86400 seconds"),
        (["--pred_iou_thresh", "nan"], "--pred_iou_thresh must be from 0 to 1"),
        (["--baseline", "--mask_memory_mib", "9"], "--mask_memory_mib contradicts --baseline"),
        (["--baseline", "--batch_size", "2"], "--batch_size contradicts --baseline"),
        (["--batch_size", "33"], "--batch_size must be from 1 to 32, not 33"),
        (["--queue_size", "0"], "--queue_size must be from 1 to 4096"),
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--cors_origin", "https://example.org/"], "argument --cors_origin: 'https://example.org/' is no origin like"),
        (["--cors_origin", "example.org"], "argument --cors_origin: 'example.org' is no origin like"),
        (["--device", "tpu"], "argument --device: 'tpu' is none of auto, cpu, cuda and cuda:N"),
    ],
    ids=str,
)
def test_refusals(arguments: list[str], message: str) -> None:
    with pytest.raises(StartupError) as refused:
        parse(arguments)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("flags", [["--fast"], ["--baseline"], ["--device", "cuda"], ["--batch_size", "2"]], ids=str)
def test_a_batch_job_of_servers_has_no_mode(flags: list[str]) -> None:
    with pytest.raises(StartupError, match=f"{flags[0]} contradicts --server, which has a model of its own"):
        parse_batch(["photos", "--output", "masks", "--server", "http://127.0.0.1:5000", *flags])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused() -> None:
    with pytest.raises(StartupError, match="--device cuda: torch finds no such CUDA device"):
        parse(["--device", "cuda"])


@pytest.mark.parametrize("arguments", [["--baseline", "--fast"], ["nowhere", "demo"], ["checkpoints", "huge"]], ids=str)
def test_a_refusal_is_one_line_and_status_2(arguments: list[str]) -> None:
    result = run_python("server.py", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("server.py: error: ")
    assert result.stderr.count("\n") == 1


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError) as refused:
            bind("127.0.0.1", port)
    assert str(refused.value) == (f"--port {port} on 127.0.0.1 cannot be used (Address already in use); choose another")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    with pytest.raises(StartupError) as refused:
        bind(host, 0)
    assert f"--host {host} is not an address of this machine" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_port_taken_while_the_model_loads_is_named() -> None:
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())  # Linux allows that as long as nobody listens
        first.listen()
        with pytest.raises(StartupError, match=r"--port \d+ on 127.0.0.1 cannot be used"):
            listening(second, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["server.py", "--help"],
        ["server.py", "--bogus"],
        ["server.py", "--points_per_side", "0"],
        ["server.py", "--port", "99999"],
        ["server.py", "--batch_size", "33"],
        ["server.py", "--max_body_mib", "0"],
        ["compile_export.py", "--help"],
        ["compile_export.py", "--fast", "--output", "tests"],
        ["compile_export.py", "--fast", "--output", "x", "--batch_size", "33"],
        ["compare_rle_lists.py", "--help"],
        ["compare_rle_lists.py", "a", "b", "--min_miou", "2"],
        ["-m", "sam2_amg", "--help"],
        ["-m", "sam2_amg", "--version"],
        ["-m", "sam2_amg", "bogus"],
        ["-m", "sam2_amg", "serve", "--help"],
        ["-m", "sam2_amg", "export", "--bogus"],
        ["-m", "sam2_amg", "segment", "--help"],
        ["-m", "sam2_amg", "segment", "a.jpg", "-o", "a.txt"],
    ],
)
def test_help_and_wrong_flags_do_not_wait_for_torch(words: list[str]) -> None:
    answer = run_python("-X", "importtime", *words)
    assert answer.returncode == (0 if {"--help", "--version"} & {*words} else 2)
    imported = {line.split("|")[-1].strip() for line in answer.stderr.splitlines()}
    assert "sam2_amg.cli.main" in imported
    assert not imported & {"torch", "torchvision", "sam2", "flask", "numpy"}


@pytest.mark.parametrize(
    ("words", "prefix", "typed"),
    [
        (["server.py"], "server.py", "python server.py checkpoints large"),
        (["compile_export.py"], "compile_export.py", "python server.py checkpoints large --fast --load_exported"),
        (["compare_rle_lists.py"], "compare_rle_lists.py", "usage: compare_rle_lists.py "),
        (["-m", "sam2_amg"], "python -m sam2_amg", "python -m sam2_amg COMMAND --help"),
        (["-m", "sam2_amg", "serve"], "python -m sam2_amg serve", "python -m sam2_amg serve checkpoints large"),
        (["-m", "sam2_amg", "export"], "python -m sam2_amg export", "python -m sam2_amg serve checkpoints large"),
        (["-m", "sam2_amg", "segment"], "python -m sam2_amg segment", "python -m sam2_amg segment photo.jpg -o"),
        (["-m", "sam2_amg", "compare"], "python -m sam2_amg compare", "usage: python -m sam2_amg compare "),
    ],
    ids=str,
)
def test_help_and_errors_name_what_was_typed(words: list[str], prefix: str, typed: str) -> None:
    shown = run_python(*words, "--help").stdout
    assert shown.startswith(f"usage: {prefix} [")
    assert typed in shown
    refused = run_python(*words, "--bogus")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"{prefix}: error: ")
    assert refused.stderr.endswith("; see --help\n")
    assert refused.stderr.count("\n") == 1


def test_help_lists_the_commands() -> None:
    shown = run_python("-m", "sam2_amg", "--help").stdout
    for name, command in COMMANDS.items():
        assert re.search(f"^  {name} +{command.summary}$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["sever"], "argument COMMAND: invalid choice: 'sever' (choose from "),
        (["--port", "80"], "the following arguments are required: COMMAND"),
    ],
    ids=str,
)
def test_what_is_no_command(words: list[str], message: str) -> None:
    refused = run_python("-m", "sam2_amg", *words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"python -m sam2_amg: error: {message}")
    assert refused.stderr.count("\n") == 1


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run_python("-m", "sam2_amg", "--version").stdout == f"sam2-amg {project['version']}\n"


def test_help_names_every_flag_and_its_default() -> None:
    result = run_python("server.py", "--help")
    assert result.returncode == 0
    for action in build_parser()._actions:
        for flag in action.option_strings:
            assert flag in result.stdout
        assert action.help
    for text in ("CHECKPOINT_DIR", "MODEL_TYPE", "default 5000", "default 32", "default 0.95", "default 67108864"):
        assert text in result.stdout
