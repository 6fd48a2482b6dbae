"""A walk over a JPEG file's markers (ITU-T T.81, annex B), before any decoder opens it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sam2_amg.decoding.refusals import too_complex

MOST_SEGMENTS = 2_000
MOST_FILL = 1_000  # bytes of 0xFF before markers, in the whole header
# A decoder goes through all pixels for each scan of 10 bytes. Programs write up to some 15 scans.
FEW_SCANS = 16
MOST_SCANNED = 1 << 31  # scans times pixels, of a file with more scans than a few
_WINDOW = 1 << 20  # bytes searched in one call, which holds the interpreter's lock
_MOST_EXIF = 4  # segments that are kept; one holds 64 KiB, and the first has the orientation
_FILL = re.compile(rb"\xff{1,%d}" % (MOST_FILL + 2))
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in entropy-coded data: neither a stuffed byte nor a restart
_EOI, _SOS, _DHT, _JPG, _DAC, _COM = 0xD9, 0xDA, 0xC4, 0xC8, 0xCC, 0xFE
_ALONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # markers without a length
_SEQUENTIAL = (0xC0, 0xC1)  # frames of Huffman codes in one pass


@dataclass(frozen=True)
class WalkedJpeg:
    """`data` is the file without the segments that no decoder needs. `buffered` is how many bytes a pixel a decoder
    keeps of coefficients: none of a file with one scan. `lacks_end` is true where only the end marker may be missing.
    """

    data: bytes
    buffered: float
    lacks_end: bool


@dataclass
class _Frame:
    marker: int
    pixels: int
    components: int
    samples: float  # of all components, a pixel


def walk_jpeg(data: bytes) -> WalkedJpeg:
    """Walks the file from its first marker to its end. Raises RequestError too_complex.

    A file that breaks off, or in which a marker is not where it should be, is left to the decoder.
    """
    return _Walk(data).to_the_end()


class _Walk:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.kept = [data[:2]]
        self.at = 2
        self.fill = self.scans = self.exif = self.xmp = 0
        self.frame: _Frame | None = None

    def to_the_end(self) -> WalkedJpeg:
        for _ in range(MOST_SEGMENTS):
            marker = self._find_marker()
            if marker is None or marker == _EOI:
                break
            end = self.at + 2
            if marker not in _ALONE:
                end += int.from_bytes(self.data[end : end + 2], "big")
            segment = self.data[self.at : end]
            if marker == _SOS:
                self.scans += 1
                self._require_few_scans()
                if self._is_only_scan(segment):  # what follows is pixels: nothing is left to walk over
                    return self._walked(0.0, self.data.rfind(b"\xff\xd9", end) < 0)
                end = _end_of_scan(self.data, end)
                segment = self.data[self.at : end]
            elif _is_frame(marker):
                self.frame = _frame_of(marker, segment)
            if self._is_needed(marker, segment):
                self.kept.append(segment)
            self.at = end
        else:
            raise too_complex(f"more than {MOST_SEGMENTS} segments")
        return self._walked(0.0 if self.frame is None else 2 * self.frame.samples, False)

    def _walked(self, buffered: float, lacks_end: bool) -> WalkedJpeg:
        return WalkedJpeg(b"".join([*self.kept, memoryview(self.data)[self.at :]]), buffered, lacks_end)

    def _find_marker(self) -> int | None:
        """The marker at which the walk stands, after fill bytes; None where there is none."""
        run = _FILL.match(self.data, self.at)
        if run is None or run.end() == len(self.data):
            return None
        self.fill += run.end() - self.at - 1
        if self.fill > MOST_FILL:
            raise too_complex(f"more than {MOST_FILL} fill bytes before its markers")
        self.at = run.end() - 1
        return self.data[run.end()]

    def _require_few_scans(self) -> None:
        pixels = self.frame.pixels if self.frame else 0
        if self.scans > FEW_SCANS and self.scans * pixels > MOST_SCANNED:
            raise too_complex(f"{self.scans} scans or more of {pixels} pixels")

    def _is_only_scan(self, segment: bytes) -> bool:
        """Whether a scan is the only one: libjpeg refuses another after it, and keeps no coefficients."""
        frame = self.frame
        if self.scans > 1 or frame is None or len(segment) < 5:
            return False
        return frame.marker in _SEQUENTIAL and segment[4] == frame.components

    def _is_needed(self, marker: int, segment: bytes) -> bool:
        """Whether a decoder needs a segment: tables, JFIF and Adobe's (the colours), EXIF and XMP (orientation)."""
        if marker != 0xE1:
            return marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == _COM)
        is_exif, is_xmp = segment[4:10] == b"Exif\0\0", segment[4:33] == b"http://ns.adobe.com/xap/1.0/\0"
        self.exif += is_exif
        self.xmp += is_xmp
        return (is_exif and self.exif <= _MOST_EXIF) or (is_xmp and self.xmp == 1)


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in (_DHT, _JPG, _DAC)


def _frame_of(marker: int, segment: bytes) -> _Frame | None:
    """What a frame header says; None where it is too short."""
    if len(segment) < 10 or len(segment) < 10 + 3 * segment[9]:
        return None
    height, width = int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[7:9], "big")
    factors = [(segment[11 + 3 * i] >> 4, segment[11 + 3 * i] & 15) for i in range(segment[9])]
    most = max((h for h, _ in factors), default=1) * max((v for _, v in factors), default=1)
    samples = sum(h * v for h, v in factors) / max(1, most)
    return _Frame(marker, height * width, segment[9], samples)


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the marker stands that ends the entropy-coded data from `at`; the file's end where there is none."""
    while at < len(data):
        if found := _MARKER.search(data, at, at + _WINDOW):
            return found.start()
        at += _WINDOW - 1  # a marker may lie across the edge
    return len(data)
