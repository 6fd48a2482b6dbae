"""What packages were made for: every difference is refused before any of them is opened."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from demo_packages import BUILD, NAMES, write_empty_packages
from helpers import CPU, ROOT

from sam2_amg.compilation import manifest
from sam2_amg.compilation.aot import package_names
from sam2_amg.compilation.manifest import NAME, Build, check_packages
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.errors import StartupError
from sam2_amg.modes.build import static_shapes

CHANGED = {
    "format": 0,
    "model type": "large",
    "checkpoint (SHA-256)": "0" * 64,
    "mode": "furious",
    "device": "cuda",
    "architecture": "sm_80",
    "torch": "2.10.0",
    "triton": "3.5.0",
    "CUDA": "12.8",
    "Python": ".cpython-310-x86_64-linux-gnu.so",
    "sam2": "1.0",
    "code (SHA-256)": "0" * 64,
    "dtype of inputs": "float16",
    "batch size": 2,
    "points at a time": 1024,
    "shapes": {"encode": [[1, 3, 1024, 1024]]},
}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    write_empty_packages(tmp_path)
    check_packages(tmp_path, BUILD, NAMES)
    return tmp_path


def refusal(folder: Path, build: Build = BUILD) -> str:
    with pytest.raises(StartupError) as caught:
        check_packages(folder, build, NAMES)
    message = str(caught.value)
    assert str(folder) in message
    assert "sam2-amg export" in message
    assert "demo --fast --device cpu --output" in message
    return message


def test_every_entry_is_compared(copied: Path) -> None:
    written = json.loads((copied / NAME).read_text())
    assert written.keys() - {"files (SHA-256)"} == CHANGED.keys()


@pytest.mark.parametrize("name", CHANGED)
def test_packages_made_for_something_else_are_refused(copied: Path, name: str) -> None:
    written = json.loads((copied / NAME).read_text())
    (copied / NAME).write_text(json.dumps({**written, name: CHANGED[name]}))
    assert f"made for {name} " in refusal(copied)
    del written[name]
    (copied / NAME).write_text(json.dumps(written))
    if name not in ("CUDA", "Python"):  # None on a CPU, as what is not there
        assert f"made for {name} None" in refusal(copied)


def test_damaged_and_missing_files_are_refused(copied: Path) -> None:
    package = copied / "attend.pt2"
    package.write_bytes(package.read_bytes()[:-1])
    assert "attend.pt2 is damaged or was changed" in refusal(copied)
    package.unlink()
    assert "attend.pt2 is missing" in refusal(copied)
    manifest = json.loads((copied / NAME).read_text())
    del manifest["files (SHA-256)"]["attend.pt2"]
    (copied / NAME).write_text(json.dumps(manifest))
    assert "does not list" in refusal(copied)
    (copied / NAME).write_text("[]")
    assert "is not a manifest" in refusal(copied)
    (copied / NAME).write_text("{")
    assert "cannot be read" in refusal(copied)
    (copied / NAME).unlink()
    assert "manifest.json is missing" in refusal(copied)


def test_another_checkpoint_is_refused(copied: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(b"other weights")
    assert "made for checkpoint (SHA-256)" in refusal(copied, replace(BUILD, checkpoint=other))


@pytest.mark.parametrize(
    ("file", "is_refused"),
    [
        ("config.py", True),
        ("postprocess/nms.py", True),
        ("kernels/launch_configs.py", True),
        ("network/decoder.py", True),
        ("pipeline/preprocess.py", True),
        ("compilation/subgraphs.py", True),
        ("modes/furious.py", True),
        ("server/app.py", False),
        ("decoding/decode.py", False),
        ("cli/main.py", False),
        ("agreement/masks.py", False),
    ],
)
def test_a_changed_line_of_code(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, is_refused: bool
) -> None:
    """Packages are refused after a change of what they depend on, and after no other."""
    code = tmp_path / "code"
    shutil.copytree(ROOT / "sam2_amg", code, ignore=shutil.ignore_patterns("demo", "__pycache__"))
    monkeypatch.setattr(manifest, "_ROOT", code)
    check_packages(copied, BUILD, NAMES)  # the same code in another place
    with (code / file).open("a") as source:
        source.write("# another line\n")
    if is_refused:
        assert "made for code (SHA-256) " in refusal(copied)
    else:
        check_packages(copied, BUILD, NAMES)


def test_an_encoder_for_each_power_of_two() -> None:
    shapes = static_shapes(Mode.FAST, 512, GeneratorConfig(), CPU, batch_size=3)
    sixteen = static_shapes(Mode.FAST, 512, GeneratorConfig(), CPU, batch_size=16)
    assert sixteen.names[:5] == ["encode_16", "encode_8", "encode_4", "encode_2", "encode"]
    assert package_names(shapes)[:3] == ["encode_3.pt2", "encode_2.pt2", "encode.pt2"]
    assert [shapes.examples(name, CPU)[0].shape[0] for name in shapes.names[:3]] == [3, 2, 1]
    assert replace(BUILD, shapes=shapes).command.endswith("--fast --device cpu --batch_size 3")
    assert "batch_size" not in BUILD.command


def test_packages_for_fewer_images_are_refused(copied: Path) -> None:
    build = replace(BUILD, shapes=static_shapes(Mode.FAST, 512, GeneratorConfig(), CPU, batch_size=3))
    with pytest.raises(StartupError, match=r"made for batch size 1, but this server has 3; .* --batch_size 3 --output"):
        check_packages(copied, build, package_names(build.shapes))
