"""The locks: every pin is in them, everything in them has a hash, and they name no address."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT

LOCKS = {
    "requirements-build.txt": "requirements-build.lock",
    "requirements.txt": "requirements.lock",
    "requirements-dev.txt": "requirements-dev.lock",
}


def locked(text: str) -> dict[str, str]:
    """Name -> version; a name that is there twice has both."""
    found: dict[str, str] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)", text, re.MULTILINE):
        key = re.sub(r"[-_.]+", "-", name).lower()
        found[key] = f"{found[key]} and {version}" if key in found else version
    return found


def read(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("pins", LOCKS)
def test_every_pin_is_locked(pins: str) -> None:
    lines = [line.partition("#")[0].strip() for line in read(pins).splitlines()]
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", line) for line in lines if line)
    needed = locked(read(pins))
    assert needed
    assert needed.items() <= locked(read(LOCKS[pins])).items()


@pytest.mark.parametrize("extra", ["heic", "parquet", "buckets"])
def test_extras_are_those_of_the_tests(extra: str) -> None:
    assert locked(read(f"requirements-{extra}.txt")).items() <= locked(read("requirements-dev.txt")).items()


def test_locks_agree() -> None:
    versions: dict[str, str] = {}
    for name in LOCKS.values():
        for package, version in locked(read(name)).items():
            assert versions.setdefault(package, version) == version, package
    assert len(versions) > 80


@pytest.mark.parametrize("name", LOCKS.values())
def test_all_has_a_hash_and_no_address(name: str) -> None:
    text = read(name)
    assert not re.search(r"https?:|index-url|find-links", text)
    entries = re.split(r"\n(?=[\w])", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).strip())
    assert len(entries) == len(locked(text))
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==\S+ ; [^\n\\]+( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry


def test_what_is_no_lock_is_found() -> None:
    assert locked("torch==2.11.0 \\\nTorch==2.12.0") == {"torch": "2.11.0 and 2.12.0"}
    assert locked("    # torch==1.0\n") == {}
