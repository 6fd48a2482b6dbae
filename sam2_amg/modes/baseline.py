"""Mode baseline: sam2's own automatic mask generator, the reference for every other mode."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam2_base import SAM2Base
from sam2.utils.amg import MaskData

from sam2_amg.config import GeneratorConfig
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.base import Generator, MaskRecord, PendingResult, for_call, with_lists
from sam2_amg.pipeline.device_errors import free_cached_memory, require_device
from sam2_amg.pipeline.prompts import PointGrids
from sam2_amg.pipeline.small_regions import without_small_regions
from sam2_amg.postprocess.crops import is_empty
from sam2_amg.postprocess.nms import restore_thin, widen_thin


class _Sam2Generator(SAM2AutomaticMaskGenerator):
    """sam2's generator, with fixes for two inputs on which it raises IndexError, and for boxes without area in NMS.

    Such boxes are one pixel wide from where they are made until the last suppression.
    """

    def _generate_masks(self, image: NDArray[np.uint8]) -> MaskData:
        data = super()._generate_masks(image)  # as NumPy arrays
        data["boxes"] = restore_thin(torch.from_numpy(data["boxes"])).numpy() + 0.0  # -0.0 becomes 0.0
        return data

    def _process_batch(self, *arguments: Any, **named: Any) -> MaskData:
        data = super()._process_batch(*arguments, **named)
        data["boxes"] = widen_thin(data["boxes"])
        return data

    def _process_crop(
        self, image: NDArray[np.uint8], crop_box: list[int], crop_layer_idx: int, orig_size: tuple[int, ...]
    ) -> MaskData:
        if is_empty(crop_box):  # a crop of an image of one or two pixels
            return MaskData()
        data = super()._process_crop(image, crop_box, crop_layer_idx, orig_size)
        if not data["rles"]:  # sam2 makes crop_boxes a tensor of shape [0], and then indexes its columns
            data["crop_boxes"] = torch.zeros(0, 4, dtype=torch.int64)
        return data


class BaselineGenerator(Generator):
    """`SAM2AutomaticMaskGenerator` with uncompressed RLEs."""

    def __init__(self, model: SAM2Base, config: GeneratorConfig) -> None:
        """`config` must have its defaults filled in."""
        self.model = model
        self.config = config
        self.generator = _Sam2Generator(model, output_mode="uncompressed_rle")
        _set_parameters(self.generator, config)
        # sam2's predictor hard-codes the feature sizes of a 1024 x 1024 input.
        side = model.image_size
        self.generator.predictor._bb_feat_sizes = [(side // stride,) * 2 for stride in (4, 8, 16)]

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3], highest predicted IoU first (with crops: smallest crops first)."""
        return self.segment(image, config=config)()

    def segment(
        self, image: NDArray[np.uint8], features: Any = None, config: GeneratorConfig | None = None
    ) -> PendingResult:
        """Segments an image; the returned function cleans the masks."""
        config = for_call(config, self.config)
        with torch.inference_mode(), float32_convolutions():
            records = self._generator_of(config).generate(image)
        return lambda: with_lists(without_small_regions(records, config))

    def segment_with_less_memory(
        self, image: NDArray[np.uint8], config: GeneratorConfig | None = None
    ) -> PendingResult:
        """`segment` with an empty cache and half the points at a time; later images get the configured number again."""
        self.generator.predictor.reset_predictor()  # it holds the features of the try that failed
        free_cached_memory(self.model.device)
        config = for_call(config, self.config)
        assert config.points_per_batch is not None
        return self.segment(image, config=replace(config, points_per_batch=max(1, config.points_per_batch // 2)))

    def _generator_of(self, config: GeneratorConfig) -> _Sam2Generator:
        """sam2's generator with these parameters. All share the predictor, which takes long to make."""
        if config is self.config:
            return self.generator
        generator = copy(self.generator)
        _set_parameters(generator, config)
        return generator

    def require_device(self) -> None:
        """Raises what the device raises if an error has made it useless to this process."""
        require_device(self.model.device)


def _set_parameters(generator: _Sam2Generator, config: GeneratorConfig) -> None:
    """Sets the attributes of sam2's generator that have the names of parameters.

    sam2 1.1.0 uses `min_mask_region_area` in its predictor alone, and only with sam2's CUDA extension. Here the
    predictor keeps its default, 0, and `without_small_regions` does what the parameter says.
    """
    options = {**vars(config), "point_grids": PointGrids(config).grids}
    for name in options.keys() & vars(generator).keys():
        setattr(generator, name, options[name])
