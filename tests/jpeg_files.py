"""JPEG files of any sampling of chroma, written from the specification (ITU-T T.81): blocks of one value each."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np


def flat_jpeg(
    factors: Sequence[tuple[int, int]], size: tuple[int, int], adobe: int | None = None, ids: bytes = b"\1\2\3\4"
) -> bytes:
    """A baseline file of random blocks. `factors` are the horizontal and vertical sampling of each component, `size`
    is width and height, `adobe` the colour transform that Adobe's segment names: 0 none, 1 YCbCr, 2 YCCK."""
    width, height = size
    most = max(h for h, _ in factors), max(v for _, v in factors)
    blocks = [h * v for h, v in factors] if len(factors) > 1 else [1]
    step = most if len(factors) > 1 else (1, 1)
    units = -(-width // (8 * step[0])) * -(-height // (8 * step[1]))
    random = np.random.default_rng(len(factors) * 100 + most[0] * 10 + most[1])
    text, last = [], [0] * len(factors)
    for _ in range(units):
        for component, count in enumerate(blocks):
            for value in random.integers(-1000, 1000, count).tolist():
                text.append(_difference(value - last[component]))
                last[component] = value
    bits = "".join(text)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, height, width, len(factors))
    frame += b"".join(bytes([ids[i], h << 4 | v, 0]) for i, (h, v) in enumerate(factors))
    scan = bytes([len(factors)]) + b"".join(bytes([ids[i], 0]) for i in range(len(factors))) + b"\0\x3f\0"
    segments = [] if adobe is None else [(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))]
    segments += [
        (0xDB, b"\0" + b"\1" * 64),
        (0xC0, frame),
        (0xC4, b"\0" + bytes([0, 0, 0, 12]) + bytes(12) + bytes(range(12))),  # twelve codes of four bits
        (0xC4, b"\x10" + bytes([1]) + bytes(15) + b"\0"),  # one code of one bit: the block's end
        (0xDA, scan),
    ]
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return b"\xff\xd8" + head + data + b"\xff\xd9"


def _difference(value: int) -> str:
    """The bits of a DC difference, and of the end of its block."""
    size = abs(value).bit_length()
    tail = f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""
    return f"{size:04b}{tail}0"
