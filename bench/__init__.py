"""Benchmarks: programs that make the numbers in results/ and README.md."""

from importlib.util import find_spec

_NEEDED = ("requests", "matplotlib")  # what requirements-dev.txt adds

if missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise SystemExit(f"bench: error: {' and '.join(missing)} not found; `make test` installs what benchmarks need")
