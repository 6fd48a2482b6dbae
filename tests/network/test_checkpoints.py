"""Checkpoints: found, downloaded from a local HTTP server, verified, refused."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from helpers import CPU
from sam2.build_sam import build_sam2

from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import StartupError
from sam2_amg.network.checkpoints import URL_VARIABLE, _demo_config, build_model, find_checkpoint, load_model
from sam2_amg.network.model_types import MODEL_TYPES

DEMO, TINY = MODEL_TYPES["demo"], MODEL_TYPES["tiny"]


class _Files(SimpleHTTPRequestHandler):
    """Serves a folder; a file whose name ends in .short is announced longer than it is."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        short = Path(self.translate_path(self.path) + ".short")
        if not short.exists():
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", str(short.stat().st_size + 1000))
        self.end_headers()
        self.wfile.write(short.read_bytes())
        self.close_connection = True
        return None


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a local HTTP server publishes in the place of Meta's."""
    folder = tmp_path / "published"
    folder.mkdir()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    monkeypatch.setenv(URL_VARIABLE, f"http://127.0.0.1:{httpd.server_port}/")
    yield folder
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_the_demo_checkpoint_loads_through_sam2s_own_builder() -> None:
    config = _demo_config()
    model = build_sam2(
        config["base"], str(DEMO_DIR / DEMO.file), device="cpu", hydra_overrides_extra=config["overrides"]
    )
    ours = load_model(DEMO_DIR / DEMO.file, DEMO, CPU)
    assert model.image_size == ours.image_size == 512
    for (name, value), (_, twin) in zip(model.state_dict().items(), ours.state_dict().items(), strict=True):
        assert torch.equal(value, twin), name
        assert twin.dtype == torch.float32


@pytest.mark.parametrize("kind", MODEL_TYPES.values(), ids=MODEL_TYPES)
def test_trunk_signatures_tell_sizes_apart(kind) -> None:
    trunk = build_model(kind).image_encoder.trunk
    assert (trunk.patch_embed.proj.out_channels, len(trunk.blocks)) == kind.trunk


def test_a_checkpoint_that_is_there_is_not_downloaded(tmp_path: Path, published: Path) -> None:
    (tmp_path / TINY.file).write_bytes(b"here")
    (published / TINY.file).write_bytes(b"there")
    assert find_checkpoint(tmp_path, TINY).read_bytes() == b"here"


def test_download_into_a_folder_that_is_made(
    tmp_path: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytes(range(256)) * 20_000
    (published / TINY.file).write_bytes(content)
    path = find_checkpoint(tmp_path / "new" / "folder", TINY)
    assert path == tmp_path / "new" / "folder" / TINY.file
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == [TINY.file]
    assert "100%" in capsys.readouterr().err  # the progress bar


def test_a_download_that_ends_early_leaves_nothing(tmp_path: Path, published: Path) -> None:
    (published / (TINY.file + ".short")).write_bytes(b"x" * 5000)
    for _ in range(2):
        with pytest.raises(StartupError) as refused:
            find_checkpoint(tmp_path / "checkpoints", TINY)
        assert "5000 of 6000 bytes" in str(refused.value)
    assert not (tmp_path / "checkpoints").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(StartupError):
        find_checkpoint(tmp_path / "there", TINY)
    assert list((tmp_path / "there").iterdir()) == []


def test_a_failed_download_says_where_to_get_the_file_and_where_to_put_it(tmp_path: Path, published: Path) -> None:
    with pytest.raises(StartupError) as refused:
        find_checkpoint(tmp_path, TINY)
    message = str(refused.value)
    assert "404" in message
    assert f"/{TINY.file} by other means and put it at {tmp_path / TINY.file}" in message


def test_an_unreachable_server_and_a_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:1")
    with pytest.raises(StartupError, match="could not be downloaded"):
        find_checkpoint(tmp_path, TINY)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartupError, match="could not be downloaded"):
        find_checkpoint(tmp_path / "file" / "below", TINY)


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "http://127.0.0.1/a b", "nonsense", "ftp:/"])
def test_addresses_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(URL_VARIABLE, url)
    with pytest.raises(StartupError, match="could not be downloaded") as refused:
        find_checkpoint(tmp_path, TINY)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_neither_a_file_nor_a_folder(tmp_path: Path, published: Path) -> None:
    """Nothing is downloaded into a folder that is called like a file."""
    for name in ("mistyped.pt", "mistyped.pth", "mistyped.safetensors"):
        with pytest.raises(StartupError, match=f"CHECKPOINT_DIR .*{name} does not exist; give a checkpoint file, or"):
            find_checkpoint(tmp_path / name, TINY)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StartupError, match="is neither a file nor a folder"):
        find_checkpoint(tmp_path / "pipe", TINY)
    assert not (tmp_path / "mistyped.pt").exists()


def test_the_demo_checkpoint_is_never_downloaded(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=rf"{DEMO.file} is missing; the demo model is in"):
        find_checkpoint(tmp_path, DEMO)


def refusal(path: Path, kind=DEMO) -> str:
    with pytest.raises(StartupError) as refused:
        load_model(path, kind, CPU)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_truncated_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / DEMO.file
    path.write_bytes((DEMO_DIR / DEMO.file).read_bytes()[:1_000_000])
    assert "truncated, damaged or not a checkpoint; restore it from the repository" in refusal(path)
    path = tmp_path / TINY.file
    path.write_bytes(b"")
    assert "delete it and start again to download it anew" in refusal(path, TINY)


def test_a_checkpoint_of_another_type(tmp_path: Path) -> None:
    path = tmp_path / TINY.file
    path.write_bytes((DEMO_DIR / DEMO.file).read_bytes())
    assert "is a checkpoint of MODEL_TYPE demo, not tiny" in refusal(path, TINY)
    torch.save({"model": build_model(TINY).state_dict()}, path)
    assert load_model(path, TINY, CPU).image_size == 1024
    assert "is a checkpoint of MODEL_TYPE tiny, not small" in refusal(path, MODEL_TYPES["small"])


@pytest.mark.parametrize("content", [{"weights": {}}, {"model": 3}, [1, 2], {"model": {1: torch.zeros(1)}}], ids=str)
def test_no_sam2_checkpoint(tmp_path: Path, content: object) -> None:
    path = tmp_path / DEMO.file
    torch.save(content, path)
    assert "no state dict under 'model'" in refusal(path)


def test_missing_unknown_and_misshapen_keys(tmp_path: Path) -> None:
    path = tmp_path / DEMO.file
    state = torch.load(DEMO_DIR / DEMO.file, weights_only=True)["model"]
    lacking = {name: value for name, value in state.items() if name != "no_mem_embed"}
    torch.save({"model": lacking}, path)
    assert "it lacks no_mem_embed (1 such keys)" in refusal(path)
    torch.save({"model": {**state, "surprise": torch.zeros(1)}}, path)
    assert "it has unknown surprise" in refusal(path)
    torch.save({"model": {**state, "no_mem_embed": torch.zeros(3)}}, path)
    assert "it has a wrong shape for no_mem_embed" in refusal(path)
    torch.save({"model": {**state, "image_encoder.trunk.patch_embed.proj.weight": torch.tensor(1.0)}}, path)
    assert "it has a wrong shape for image_encoder.trunk.patch_embed.proj.weight" in refusal(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, number: float) -> None:
    path = tmp_path / DEMO.file
    state = torch.load(DEMO_DIR / DEMO.file, weights_only=True)["model"]
    state["no_mem_embed"][0, 0, 3] = number
    torch.save({"model": state}, path)
    assert f"{path} has weights that are NaN or infinite: no_mem_embed; restore it" in refusal(path)


class _Exploit:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.target),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    path, witness = tmp_path / DEMO.file, tmp_path / "executed"
    for save in (torch.save, lambda value, where: Path(where).write_bytes(pickle.dumps(value))):
        save({"model": _Exploit(str(witness))}, path)
        refusal(path)
        assert not witness.exists()
