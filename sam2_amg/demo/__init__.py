"""The bundled demo model: checkpoint, configuration and photographs to try it on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

DEMO_DIR = Path(str(files(__name__)))
PHOTOGRAPHS = DEMO_DIR / "photographs"
EXAMPLE = PHOTOGRAPHS / "dog.jpg"
