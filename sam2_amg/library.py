"""The door for Python: `load` gives a Segmenter, which answers as the server does, without HTTP."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sam2_amg.answers.filters import filtered
from sam2_amg.config import GeneratorConfig, Limits, Mode, ModelConfig
from sam2_amg.decoding.decode import decode_image, pixels_of
from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import ParameterError, RequestError, StartupError
from sam2_amg.modes.load import load_generator
from sam2_amg.modes.warmup import memory_errors
from sam2_amg.parameters import APPLIES, NAMES, OF_GENERATOR, Parameters, read_values
from sam2_amg.pipeline.base import Generator, MaskRecord, with_lists
from sam2_amg.pipeline.device_errors import is_out_of_memory

logger = logging.getLogger(__name__)

Picture = NDArray[np.uint8] | Image.Image | str | os.PathLike[str]
_OF_CALLS = frozenset(NAMES) - {"format", *APPLIES}  # what chooses masks, and not how an answer is written
_OF_LOAD = frozenset(OF_GENERATOR) | {"mask_memory_mib"}


class Segmenter:
    """A loaded model. Threads may share it: those that the device has no use for wait for each other."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._turns = threading.BoundedSemaphore(generator.workers)

    @property
    def config(self) -> GeneratorConfig:
        """The generator's parameters where a call gives no others."""
        return self._generator.config

    def generate(self, image: Picture, **parameters: Any) -> list[MaskRecord]:
        """The masks of an image, highest predicted IoU first (with crops: smallest crops first).

        `image` is uint8 RGB [H, W, 3], an image of Pillow, or the path of an image file. Files and images of Pillow are
        turned upright and laid over white, as the server does.

        `parameters` are those of a request to the server (docs/http-api.md) but for the ones of its answer's format:
        sam2's own, such as `points_per_side`; `points` in pixels; the filters `max_masks`, `min_mask_area`,
        `max_mask_area`, `mask_nms_thresh` and `disjoint`; and `stretch`, for files alone. They hold for this call.

        Records are sam2's: dicts of `segmentation` (COCO's uncompressed RLE: `size` [h, w] and `counts`), `area`
        (pixels), `bbox` ([x, y, w, h]), `predicted_iou`, `point_coords` ([[x, y]]), `stability_score` and `crop_box`
        ([x, y, w, h]).

        Raises TypeError for what is no image and for an unknown parameter, ValueError for a value that is not allowed
        and for a file that is no image, OSError for a file that cannot be opened.
        """
        chosen = _parameters(parameters, _OF_CALLS, self.config)
        pixels = _pixels(image, chosen.stretch)
        try:
            return self.find(pixels, chosen)
        except ParameterError as error:  # points outside the image
            raise _for_python(error) from error

    def find(self, image: NDArray[np.uint8], parameters: Parameters) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3] that pass the filters. Raises ParameterError for points outside it.

        After a lack of memory the image is tried once more, with less.
        """
        size = image.shape[0], image.shape[1]
        config = parameters.config(self.config, size)
        with self._turns:
            records = self._segment(image, config)
        return filtered(records, size, parameters.filters())

    @staticmethod
    def is_out_of_memory(error: BaseException) -> bool:
        """Whether `find` and `generate` raised this because the device or the host has too little memory."""
        return is_out_of_memory(error)

    def _segment(self, image: NDArray[np.uint8], config: GeneratorConfig | None) -> list[MaskRecord]:
        try:
            return self._generator.generate(image, config)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # what was raised is gone by now, and with it the frames that held tensors
        return with_lists(self._generator.segment_with_less_memory(image, config)())


def load(
    model_type: str = "demo",
    checkpoint_dir: str | os.PathLike[str] | None = None,
    mode: str = "ao",
    device: str | None = None,
    **generator_defaults: Any,
) -> Segmenter:
    """Loads a model, for any number of images.

        from sam2_amg import load

        segmenter = load("large", mode="fast")
        for record in segmenter.generate("photo.jpg", points_per_side=16, max_masks=20):
            print(record["area"], record["bbox"], record["predicted_iou"])

    `model_type` is tiny, small, plus, large or demo. `checkpoint_dir` is a folder of checkpoints or a file of
    fine-tuned weights. Without it, an official checkpoint lies in torch.hub's folder, and is downloaded if it is
    missing. `mode` is baseline, ao, fast or furious (docs/modes.md); the last two compile for a minute or two.
    `device` is cpu or cuda; None for cuda if there is one. `generator_defaults` are parameters of sam2's generator,
    and `mask_memory_mib`, for calls that give no others.

    Raises StartupError if the model cannot be loaded, ValueError and TypeError for arguments that are not allowed.
    """
    if mode not in (known := [each.value for each in Mode]):
        raise ValueError(f"mode must be one of {', '.join(known)}, not {mode!r}")
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or None, not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise StartupError('device="cuda": torch finds no CUDA device; give device="cpu", or leave it out')
    defaults = dict(generator_defaults)
    memory = {"mask_memory_mib": defaults.pop("mask_memory_mib")} if "mask_memory_mib" in defaults else {}
    try:
        own = GeneratorConfig(**memory)
        own = _parameters(defaults, _OF_LOAD, own).config(own, (0, 0)) or own
    except ParameterError as error:
        raise _for_python(error) from error
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else _default_folder(model_type)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = ModelConfig(folder.expanduser(), model_type, Mode(mode), place)
    return load_segmenter(model, own, partial(logger.info, "%s ..."))


def load_segmenter(model: ModelConfig, parameters: GeneratorConfig, report: Callable[[str], None]) -> Segmenter:
    """A segmenter of this model, and of these parameters where a call gives no others.

    `report` is told what is being done. Raises StartupError.
    """
    with memory_errors("points_per_batch"):
        return Segmenter(load_generator(model, parameters, report))


def _default_folder(model_type: str) -> Path:
    return DEMO_DIR if model_type == "demo" else Path(torch.hub.get_dir()) / "checkpoints"


def _parameters(values: Mapping[str, Any], known: frozenset[str], own: GeneratorConfig) -> Parameters:
    """The model of keyword arguments; what NumPy made counts as well. Raises TypeError and ValueError."""
    for name in values:
        if name not in known:
            raise TypeError(f"{name} is no parameter here. Known parameters: {', '.join(sorted(known))}")
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value for name, value in values.items()
    }
    try:
        chosen = read_values(plain, Parameters)
        chosen.check(own)
    except ParameterError as error:
        raise _for_python(error) from error
    return chosen


def _for_python(error: ParameterError) -> ValueError:
    return ValueError(f"{error.name} {error.problem}")


def _pixels(image: Picture, stretch: str | None) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3] of whatever `generate` takes."""
    if isinstance(image, str | os.PathLike):
        try:
            return decode_image(Path(image).read_bytes(), Limits(), stretch)
        except RequestError as error:
            raise ValueError(f"{os.fspath(image)}: {error.message}") from error
    if stretch is not None:
        raise ValueError("stretch reads the samples of a file; give the path of one, or leave it out")
    if isinstance(image, Image.Image):
        try:
            return pixels_of(image, Limits())
        except RequestError as error:
            raise ValueError(error.message) from error
    return _checked(image)


def _checked(image: Any) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"the image is a {type(image).__name__}; give an array of NumPy, an image of Pillow or a path")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image is {image.dtype} {list(image.shape)}; give uint8 RGB [H, W, 3]")
    limits = Limits()
    height, width = image.shape[:2]
    is_small = max(height, width) <= limits.max_side and height * width <= limits.max_pixels
    if min(height, width) < 1 or not is_small:
        most = f"{limits.max_side} pixels a side and {limits.max_pixels} in all"
        raise ValueError(f"the image has {width} x {height} pixels; give 1 to {most}")
    return np.ascontiguousarray(image)
