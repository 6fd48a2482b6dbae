"""manifest.json: what an output folder was made with. A run with other settings does not mix with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

from sam2_amg.batch.stores.base import Store
from sam2_amg.errors import StartupError

NAME = "manifest.json"
_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """`settings` change the masks or the files; `versions` are those of the first run."""

    settings: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that stand for the settings; each row has them."""
        text = json.dumps(self.settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def text(self) -> bytes:
        """The file."""
        made = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"manifest": _VERSION, "created": made, "settings_hash": self.hash}
        return json.dumps({**about, "settings": self.settings, "versions": self.versions}, indent=1).encode() + b"\n"


def settle(store: Store, own: Manifest, report: Callable[[str], None]) -> None:
    """Writes the manifest into a store that has none, else compares it.

    Raises StartupError if settings differ, with the name of each. Other versions are reported.
    """

    def fill(stream: BinaryIO) -> None:
        stream.write(own.text())

    if NAME not in store.names() and store.create(NAME, fill):
        return
    with store.read(NAME) as stream:
        data = stream.read()
    try:
        there = json.loads(data)
        settings, versions = dict(there["settings"]), dict(there["versions"])
    except (ValueError, KeyError, TypeError) as error:
        raise StartupError(f"{store.address}/{NAME} is no manifest; give another --output") from error
    wrong = list(_differences(settings, json.loads(json.dumps(own.settings))))
    if wrong:
        raise StartupError(
            f"{store.address} was begun with other settings: {'; '.join(wrong)}; give the same, or another --output"
        )
    for name, version in own.versions.items():
        if versions.get(name) != version:
            report(f"{store.address} was begun with {name} {versions.get(name)}, this is {version}")


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in sorted(there.keys() | here.keys()):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} {json.dumps(old)}, now {json.dumps(new)}"
