"""Serve SAM 2.1's automatic mask generator over HTTP; same as `sam2-amg serve`. See `python server.py --help`."""

from __future__ import annotations

import sys

from sam2_amg.__main__ import start

if __name__ == "__main__":
    sys.exit(start("serve"))
