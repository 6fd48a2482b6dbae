"""Checkpoints are known by their SHA-256: a damaged demo model is refused, other weights are warned of."""

from __future__ import annotations

import hashlib
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import SHIPPED, RunningServer

from sam2_amg.config import GeneratorConfig, ModelConfig
from sam2_amg.errors import StartupError
from sam2_amg.modes.load import load_generator
from sam2_amg.network import weights
from sam2_amg.network.known_hashes import OFFICIAL_SHA256
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.network.weights import Weights, check_weights, hash_beside, hash_checkpoint

DEMO, LARGE = MODEL_TYPES["demo"], MODEL_TYPES["large"]
SHIPPED_HASH = hash_beside(SHIPPED)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The demo model with one byte flipped, in the middle of its weights."""
    path = tmp_path / SHIPPED.name
    content = bytearray(SHIPPED.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert len(content) == SHIPPED.stat().st_size
    return path


def test_the_demo_model_is_the_one_that_ships() -> None:
    assert SHIPPED_HASH is not None
    assert check_weights(SHIPPED, DEMO) == Weights(SHIPPED.name, SHIPPED_HASH, official=True)


@pytest.mark.parametrize("beside", [False, True])
def test_a_flipped_byte_is_refused_with_both_hashes(damaged: Path, beside: bool) -> None:
    if beside:
        shutil.copy(f"{SHIPPED}.sha256", damaged.parent)
    with pytest.raises(StartupError) as refused:
        check_weights(damaged, DEMO)
    message = str(refused.value)
    for part in (str(damaged), SHIPPED_HASH, hashlib.sha256(damaged.read_bytes()).hexdigest(), "restore it"):
        assert part in message
    assert "\n" not in message


def test_in_the_package_the_way_out_is_to_reinstall(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(f"{SHIPPED}.sha256", damaged.parent)
    monkeypatch.setattr(weights, "DEMO_DIR", damaged.parent)
    with pytest.raises(StartupError, match=r"reinstall sam2-amg-server, or git checkout"):
        check_weights(damaged, DEMO)


def test_a_server_does_not_start_with_it(damaged: Path) -> None:
    with pytest.raises(StartupError, match=f"not {SHIPPED_HASH}"):
        load_generator(ModelConfig(damaged.parent, "demo"), GeneratorConfig(), lambda _: None)


def test_ones_own_demo_model_is_accepted_with_a_note(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = hashlib.sha256(damaged.read_bytes()).hexdigest()
    Path(f"{damaged}.sha256").write_text(f"{own}  {damaged.name}\n")
    assert check_weights(damaged, DEMO) == Weights(damaged.name, own, official=False)
    assert own in caplog.text


def test_other_weights_under_an_official_name_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / LARGE.file
    path.write_bytes(b"fine-tuned")
    found = check_weights(path, LARGE)
    assert found == Weights(LARGE.file, hashlib.sha256(b"fine-tuned").hexdigest(), official=False)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for part in (found.sha256, OFFICIAL_SHA256[LARGE.file]):
        assert part in record.getMessage()
    Path(f"{path}.sha256").write_text("0" * 64)
    with pytest.raises(StartupError, match="is damaged or was changed"):
        check_weights(path, LARGE)


def test_what_is_published_is_official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / LARGE.file
    path.write_bytes(b"published")
    monkeypatch.setitem(OFFICIAL_SHA256, LARGE.file, hashlib.sha256(b"published").hexdigest())
    assert check_weights(path, LARGE).official is True
    monkeypatch.delitem(OFFICIAL_SHA256, LARGE.file)
    assert check_weights(path, LARGE).official is None


def test_every_published_file_is_known() -> None:
    assert OFFICIAL_SHA256.keys() == {kind.file for kind in MODEL_TYPES.values() if kind.download}
    assert all(len(bytes.fromhex(known)) == 32 for known in OFFICIAL_SHA256.values())


@pytest.mark.parametrize("text", ["", "no hash", "abc  file"])
def test_a_note_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / LARGE.file
    path.write_bytes(b"x")
    Path(f"{path}.sha256").write_text(text)
    with pytest.raises(StartupError, match=r"has no SHA-256 in it; write it again: sha256sum"):
        check_weights(path, LARGE)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read"):
        check_weights(tmp_path / LARGE.file, LARGE)


def test_a_checkpoint_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    real = weights.hash_file
    monkeypatch.setattr(weights, "hash_file", lambda path: (calls.append(path), real(path))[1])
    path = tmp_path / "file"
    path.write_bytes(b"1")
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(hash_checkpoint, [path] * 8))) == 1
    assert calls == [path]
    path.write_bytes(b"22")
    assert hash_checkpoint(path) == hashlib.sha256(b"22").hexdigest()
    assert calls == [path, path]


def test_info_names_the_weights(server: RunningServer) -> None:
    assert server.get("/info").json()["weights"] == {"file": SHIPPED.name, "sha256": SHIPPED_HASH, "official": True}
