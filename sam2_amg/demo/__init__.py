"""The bundled demo model: its checkpoint, its configuration and photographs to try it on."""

from __future__ import annotations

from pathlib import Path

DEMO_DIR = Path(__file__).resolve().parent
PHOTOGRAPHS = DEMO_DIR / "photographs"
EXAMPLE = PHOTOGRAPHS / "dog.jpg"
