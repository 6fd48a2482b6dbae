"""The wheel: what is in it, and that it works where there is no checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest
from helpers import LENIENT, ROOT, start_server

from sam2_amg.demo import DEMO_DIR, EXAMPLE
from sam2_amg.process.version import find_version

pytestmark = pytest.mark.xdist_group("wheel")

# pip's, which would have pip ask a registry, and Python's, which would have the checkout imported
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and name[:4] != "PIP_"}


def run(*command: object, folder: Path) -> str:
    words = [*map(str, command)]
    ended = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as building leaves files in the folder."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT, folder / "code", ignore=shutil.ignore_patterns(".*", "results", "__pycache__", "build", "*.egg-info")
    )
    build = ("wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    run(sys.executable, "-m", "pip", *build, "--wheel-dir", folder, folder / "code", folder=folder)
    (built,) = folder.glob("*.whl")
    shutil.rmtree(folder / "code")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The programs of a new environment with the wheel, which sees the packages of this one."""
    environment = wheel.parent / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, folder=wheel.parent)
    python = environment / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    run(sys.executable, "-m", "pip", "--python", python, *install, wheel, folder=wheel.parent)
    (packages,) = environment.glob("lib/python*/site-packages")
    # a folder in a .pth file is searched, and the .pth files in it, as of a checkout that is installed, are not read
    seen = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in seen))
    return environment / "bin"


def test_what_is_in_it(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"sam2_amg", f"sam2_amg_server-{find_version()}.dist-info"}
    files = [path for path in (ROOT / "sam2_amg").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {name for name in names if name.startswith("sam2_amg/")} == {str(path.relative_to(ROOT)) for path in files}
    assert {f"sam2_amg/demo/{path.name}" for path in DEMO_DIR.glob("*.pt")} <= names


def test_what_it_depends_on(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        metadata = archive.read(f"sam2_amg_server-{find_version()}.dist-info/METADATA").decode()
    for extra, file in (
        ("", "requirements.txt"),
        ("; extra == 'dev'", "requirements-dev.txt"),
        ("; extra == 'heic'", "requirements-heic.txt"),
    ):
        for line in (ROOT / file).read_text().splitlines():
            pin = line.partition("#")[0].strip()
            assert not pin or f"Requires-Dist: {pin}{extra}\n".replace("'", '"') in metadata, pin


def test_the_code_is_its_own(installed: Path, tmp_path: Path) -> None:
    program = "import sam2_amg, sam2_amg.demo as demo; print(sam2_amg.__file__); print(demo.EXAMPLE)"
    for path in run(installed / "python", "-c", program, folder=tmp_path).splitlines():
        assert Path(path).is_relative_to(installed.parent), path


def test_it_says_its_version_and_how_it_was_called(installed: Path, tmp_path: Path) -> None:
    console = installed / "sam2-amg"
    assert run(console, "--version", folder=tmp_path) == f"sam2-amg {find_version()}\n"
    assert run(console, "serve", "--help", folder=tmp_path).startswith("usage: sam2-amg serve [-h] ")
    refused = subprocess.run(
        [console, "serve", "--bogus"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr == "sam2-amg serve: error: unrecognized arguments: --bogus; see --help\n"


def test_it_compares_lists(installed: Path, tmp_path: Path) -> None:
    answers = [{"mask_0": {"size": [2, 2], "counts": counts}} for counts in ([0, 4], [0, 2, 2])]
    for name, answer in zip("ab", answers, strict=True):
        (tmp_path / name).write_text(json.dumps(answer) + "\n")
    shown = run(installed / "sam2-amg", "compare", "a", "b", folder=tmp_path)
    assert "matched mIoU, all images    0.500000" in shown


def test_it_serves_the_demo_model(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "sam2-amg"), "serve"]
    server = start_server("--device", "cpu", "--points_per_side", "2", *LENIENT, command=command, folder=tmp_path)
    try:
        (example,) = re.findall(r"image=@(\S+)", server.greeting)
        assert (tmp_path / example).resolve().is_relative_to(installed.parent)
        answer = server.post("/upload_rle", EXAMPLE.read_bytes())
        assert answer.status_code == 200
        assert answer.json()["mask_0"]["size"] == [534, 800]
    finally:
        assert server.stop() == 0
        assert server.process.stdout is not None
        server.process.stdout.close()
