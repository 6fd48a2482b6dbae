"""Mutated image files through decoders: whatever comes out is an image, or an error that names what is wrong.

python -m bench.fuzz                    10,000 files, in a minute or two
python -m bench.fuzz --files 300 --seed 7
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from bench.harness.image_bombs import encoded
from sam2_amg.config import Limits
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import EXAMPLE
from sam2_amg.errors import RequestError

_SAVED: tuple[tuple[str, str, dict], ...] = (
    ("RGB", "JPEG", {}),
    ("RGB", "JPEG", {"progressive": True}),
    ("L", "JPEG", {}),
    ("CMYK", "JPEG", {}),
    ("RGB", "PNG", {}),
    ("RGBA", "PNG", {}),
    ("P", "PNG", {}),
    ("RGB", "WEBP", {}),
    ("RGBA", "WEBP", {"lossless": True}),
    ("P", "GIF", {}),
    ("RGB", "BMP", {}),
    ("RGB", "TIFF", {}),
    ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    ("RGB", "TIFF", {"compression": "jpeg", "tiffinfo": {278: 16}}),
    ("YCbCr", "TIFF", {"compression": "packbits"}),
    ("1", "TIFF", {"compression": "group4"}),
    ("I;16", "TIFF", {"compression": "tiff_adobe_deflate"}),
    ("P", "TIFF", {}),
    ("RGBA", "TIFF", {"compression": "zstd", "big_tiff": True}),
    ("I;16", "PNG", {}),
    ("RGB", "AVIF", {"speed": 9}),
    ("RGBA", "AVIF", {"speed": 9}),
    ("RGB", "HEIC", {}),
    ("RGBA", "HEIC", {"tile_size": 64}),
)


def sound_files() -> list[bytes]:
    """A small photograph in every format, with EXIF where it can be."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    with Image.open(EXAMPLE) as photograph:
        for mode, kind, options in _SAVED:
            image = photograph.resize((96, 64)).convert("L" if mode == "I;16" else mode)
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            files.append(encoded(image, kind, **options, **({} if kind in ("BMP", "GIF") else {"exif": exif})))
    return files


def mutated(files: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` files, each with bytes that are flipped, cut out or doubled, most of them in its header."""
    random = np.random.default_rng(seed)
    for i in range(count):
        data = bytearray(files[i % len(files)])
        for _ in range(random.integers(1, 6)):
            at = int(random.integers(0, min(len(data), 600) if random.random() < 0.6 else len(data)))
            span = int(random.integers(1, 40))
            match random.integers(0, 5):
                case 0:
                    del data[at : at + span]
                case 1:
                    data[at:at] = data[at : at + span]
                case 2:
                    data[at : at + span] = b"\xff" * len(data[at : at + span])
                case _:
                    data[at] ^= 1 << int(random.integers(0, 8))
            if len(data) < 2:
                break
        yield bytes(data)


def fuzz(pool: DecoderPool, count: int, seed: int) -> Counter[str]:
    """How often each code came out of `count` mutated files, and `decoded`. Raises whatever is no RequestError."""

    def outcome(data: bytes) -> str:
        try:
            with pool.decoded(data) as image:
                assert image.dtype == np.uint8
                assert image.ndim == 3
                return "decoded"
        except RequestError as error:
            return error.code

    with ThreadPoolExecutor(pool.size) as threads:
        return Counter(threads.map(outcome, mutated(sound_files(), count, seed)))


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    args = parser.parse_args(arguments)
    with DecoderPool(Limits()) as pool:
        for code, count in fuzz(pool, args.files, args.seed).most_common():
            print(f"{count:>8} {code}")


if __name__ == "__main__":
    main(sys.argv[1:])
