"""TIFF files of every kind, written from the specification (TIFF 6.0), and the pictures that they hold."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WHITE, BLACK, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
PLAIN, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
ASSOCIATED, UNASSOCIATED = 1, 2


def tiff(
    samples: NDArray,
    bits: int,
    photometric: int,
    compression: int = PLAIN,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    tile: int = 0,
    predictor: int = 1,
    fill_order: int = 1,
    extras: Sequence[int] = (),
    more: dict[int, tuple[str, Sequence[int]]] | None = None,
) -> bytes:
    """A file of samples [h, w, bands], in tiles of `tile` x 16 or in strips of 7 rows."""
    height, width, bands = samples.shape
    planes = [samples[..., i : i + 1] for i in range(bands)] if planar else [samples]
    down, across = (16, tile) if tile else (7, width)
    chunks = []
    for plane in planes:
        for top in range(0, height, down):
            for left in range(0, width, across):
                part = plane[top : top + down, left : left + across]
                if tile:
                    missing = down - part.shape[0], across - part.shape[1]
                    part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
                chunks.append(_packed(part, bits, order, predictor, compression, fill_order))
    fields: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * bands),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        277: ("H", [bands]),
        284: ("H", [2 if planar else 1]),
    }
    fields |= {266: ("H", [fill_order])} if fill_order != 1 else {}
    fields |= {317: ("H", [predictor])} if predictor != 1 else {}
    fields |= {338: ("H", extras)} if extras else {}
    fields |= {322: ("I", [across]), 323: ("I", [down])} if tile else {278: ("I", [down])}
    fields |= more or {}
    return assemble(fields, chunks, order, big, tiled=bool(tile))


def assemble(
    fields: dict[int, tuple[str, Sequence[int]]], chunks: list[bytes], order: str, big: bool, tiled: bool
) -> bytes:
    """A file of one directory, with its strips or tiles before it."""
    body, at, places = b"", 16 if big else 8, []
    for chunk in chunks:
        places.append(at + len(body))
        body += chunk + bytes(len(chunk) & 1)
    wide = "Q" if big else "I"
    fields = dict(fields)
    fields[324 if tiled else 273] = (wide, places)
    fields[325 if tiled else 279] = (wide, [len(chunk) for chunk in chunks])
    mark = b"II" if order == "<" else b"MM"
    start = at + len(body)
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HI", 42, start))
    return head + body + directory(fields, start, order, big)


def directory(fields: dict[int, tuple[str, Sequence[int]]], start: int, order: str = "<", big: bool = False) -> bytes:
    """A directory at `start`, with its values behind it."""
    kinds = {"B": 1, "H": 3, "I": 4, "Q": 16, "b": 6, "h": 8}
    inline, count = (8, "Q") if big else (4, "I")
    behind = start + (8 + 20 * len(fields) + 8 if big else 2 + 12 * len(fields) + 4)
    entries, values = struct.pack(order + ("Q" if big else "H"), len(fields)), b""
    for tag, (kind, numbers) in sorted(fields.items()):
        raw = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        place = raw.ljust(inline, b"\0") if len(raw) <= inline else struct.pack(order + count, behind + len(values))
        values += raw + bytes(len(raw) & 1) if len(raw) > inline else b""
        entries += struct.pack(order + "HH" + count, tag, kinds[kind], len(numbers)) + place
    return entries + bytes(inline) + values


def _packed(part: NDArray, bits: int, order: str, predictor: int, compression: int, fill_order: int) -> bytes:
    rows = len(part)
    if predictor == 2:
        part = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1]))  # wraps, as it is to
    if bits == 16:
        data = part.astype(order + "u2").tobytes()
    else:
        spread = part.reshape(rows, -1, 1) >> np.arange(bits - 1, -1, -1) & 1
        data = np.packbits(spread.astype(np.uint8).reshape(rows, -1), axis=1).tobytes()
    data = {PLAIN: bytes, LZW: _lzw, DEFLATE: zlib.compress, PACKBITS: _packbits}[compression](data)
    if fill_order == 2:
        data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()
    return data


def _lzw(data: bytes) -> bytes:
    """Codes of nine bits alone: the table is cleared before it grows."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    codes.append(257)
    return np.packbits(np.array(codes)[:, None] >> np.arange(8, -1, -1) & 1).tobytes()


def _packbits(data: bytes) -> bytes:
    return b"".join(bytes([len(data[i : i + 128]) - 1]) + data[i : i + 128] for i in range(0, len(data), 128))


def picture(
    samples: NDArray, bits: int, photometric: int, extras: Sequence[int] = (), palette: NDArray | None = None
) -> NDArray[np.uint8]:
    """The picture of samples [h, w, bands], over white, in exact arithmetic: uint8 [h, w, 3]."""
    top = (1 << bits) - 1
    values = samples.astype(np.int64)
    colours = {WHITE: 1, BLACK: 1, RGB: 3, PALETTE: 1, CMYK: 4}[photometric]
    colour = values[..., :colours]
    if photometric == WHITE:
        colour = top - colour
    elif photometric == CMYK:
        light = top - colour[..., 3:]
        colour = light - nearest(colour[..., :3] * light, top)
    elif photometric == PALETTE:
        assert palette is not None
        colour, top = palette[colour[..., 0]].astype(np.int64), 255
    for i, kind in enumerate(extras):
        alpha = values[..., colours + i :][..., :1]
        if kind == ASSOCIATED:
            colour = np.minimum(top, colour + top - alpha)
        elif kind == UNASSOCIATED:
            colour = nearest(colour * alpha + top * (top - alpha), top)
    return np.broadcast_to(nearest(colour * 255, top), (*samples.shape[:2], 3)).astype(np.uint8)


def nearest(product: NDArray[np.int64], divisor: int) -> NDArray[np.int64]:
    return (2 * product + divisor) // (2 * divisor)
