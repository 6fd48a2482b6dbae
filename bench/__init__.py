"""Benchmarks: programs that make the numbers in results/ and the documentation."""

from importlib.util import find_spec
from pathlib import Path

from sam2_amg.demo import PHOTOGRAPHS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
DOG_MASKS = ROOT / "bench" / "dog_rle.json"  # SAM 2.1 large's masks of dog.jpg

SAMPLES = sorted(PHOTOGRAPHS.glob("*.jpg"))  # photographs that every checkout has

_NEEDED = ("requests", "matplotlib")  # what requirements-dev.txt adds

if missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise SystemExit(f"bench: error: {' and '.join(missing)} not found; `make test` installs what benchmarks need")
