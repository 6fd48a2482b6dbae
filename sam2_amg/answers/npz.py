"""`npz`: NumPy's archive, with a bit a pixel."""

from __future__ import annotations

import io
import zipfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sam2_amg.answers.options import Segmented
from sam2_amg.answers.runs import Runs, crop_of, runs_of
from sam2_amg.process.wanted import while_wanted

_COMPRESSION = 1  # most bytes are 0, which the fastest level packs well
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of the format, so that equal masks make equal files


def pack(runs: Runs, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask as bits, uint8 [H, ceil(W / 8)]: as `np.packbits(mask, axis=1)` makes them."""
    height, width = size
    packed = np.zeros((height, -(-width // 8)), np.uint8)
    box, crop = crop_of(runs, height)
    left = box.x0 % 8  # columns between the start of a byte and the box
    rows = np.zeros((box.y1 - box.y0, left + box.x1 - box.x0), bool)
    rows[:, left:] = crop.T
    bits = np.packbits(rows, axis=1)
    packed[box.y0 : box.y1, box.x0 // 8 : box.x0 // 8 + bits.shape[1]] = bits
    return packed


def _table(image: Segmented) -> dict[str, NDArray[Any]]:
    """The arrays but for the masks."""
    records = image.records
    shape = (len(records), *image.size)
    return {
        "shape": np.array(shape, np.int64),
        "area": np.array([record["area"] for record in records], np.int64),
        "bbox": np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4),
        "predicted_iou": np.array([record["predicted_iou"] for record in records], np.float64),
        "stability_score": np.array([record["stability_score"] for record in records], np.float64),
        "point_coords": np.array([record["point_coords"] for record in records], np.float64).reshape(-1, 2),
        "crop_box": np.array([record["crop_box"] for record in records], np.float64).reshape(-1, 4),
    }


def _open(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    entry = zipfile.ZipInfo(f"{name}.npy", _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(entry, "w", force_zip64=True)


def _write_masks(stream: IO[bytes], image: Segmented) -> None:
    height, width = image.size
    shape = (len(image.records), height, -(-width // 8))
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for record in while_wanted(image.records):  # one at a time, because all of them can take gigabytes
        stream.write(pack(runs_of(record["segmentation"]), image.size).data)


def encode(image: Segmented) -> bytes:
    """The arrays `masks` (uint8 [n, H, ceil(W / 8)], bits along the last axis), `shape` (n, H, W), and one for each
    other field of the records. It takes the memory of one mask beside that of the compressed file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compresslevel=_COMPRESSION) as archive:
        for name, array in _table(image).items():
            with _open(archive, name) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
        with _open(archive, "masks") as stream:
            _write_masks(stream, image)
    return buffer.getvalue()
