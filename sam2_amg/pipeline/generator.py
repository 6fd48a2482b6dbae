"""The pipeline of every mode except baseline: one named call per stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.utils.amg import is_box_near_crop_edge, uncrop_boxes_xyxy, uncrop_points
from torch import Tensor
from torchvision.ops.boxes import box_area

from sam2_amg.config import GeneratorConfig
from sam2_amg.kernels.host_copy import begin_copy
from sam2_amg.network.decoder import Kept, MaskDecoder, predict
from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.pipeline.base import Generator, MaskRecord, PendingResult, for_call, with_lists
from sam2_amg.pipeline.candidates import Candidates, tabulate, to_records
from sam2_amg.pipeline.device_errors import free_cached_memory, require_device
from sam2_amg.pipeline.prompts import PointGrids, to_model_input
from sam2_amg.pipeline.small_regions import without_small_regions
from sam2_amg.pipeline.streams import PerThreadStream, StreamOrderedLock
from sam2_amg.postprocess.crops import Crop, crops_of
from sam2_amg.postprocess.mask_stats import MaskStats
from sam2_amg.postprocess.rle import RunBoundaries

ImageSize = tuple[int, int]  # (height, width)
_SAM2_DECODER_POINTS = 64  # points that sam2's decoder takes at once; with 1024 x 1024 pixels they take 2 GiB


@dataclass(frozen=True)
class Stages:
    """The function of each stage. Modes differ only in these; `modes/build.py` chooses them."""

    preprocess: Callable[[NDArray[np.uint8]], Tensor]
    encode: Callable[[Tensor], ImageFeatures]
    decoder: MaskDecoder
    mask_stats: Callable[[Tensor, ImageSize, float, float], MaskStats]
    suppress: Callable[[Tensor, Tensor, float, Tensor | None], Tensor]
    run_boundaries: Callable[[Tensor, Crop, ImageSize, float], list[RunBoundaries]]
    encoding: StreamOrderedLock  # held in the encoder, whose static tensors all threads share
    decoding: StreamOrderedLock  # the same of the decoder; one image is encoded while another is decoded
    sam2_decoder: Callable[[bool, bool, int], MaskDecoder]  # from multimask_output, use_m2m and points at once
    fixed_points: bool = False  # whether `decoder` takes one number of points, whatever it is given

    def decoder_for(self, config: GeneratorConfig) -> MaskDecoder:
        """The decoder of a configuration: the mode's own, or sam2's for what only that can do."""
        if config.multimask_output and not config.use_m2m:
            return self.decoder
        at_once = min(_points_at_once(config), _SAM2_DECODER_POINTS)
        return self.sam2_decoder(config.multimask_output, config.use_m2m, at_once)


@dataclass(frozen=True)
class Search:
    """What the searches of all crops of an image share. `config` has its defaults filled in."""

    image: NDArray[np.uint8]  # RGB [H, W, 3]
    config: GeneratorConfig
    point_grids: PointGrids
    decoder: MaskDecoder

    @property
    def size(self) -> ImageSize:
        """(height, width)"""
        return self.image.shape[0], self.image.shape[1]


class PredictedMasks(NamedTuple):
    """The network's output for n masks: low-res logits [n, h, w], predicted IoU [n] and prompt points [n, 2].

    Points are (x, y) in pixels of the photograph.
    """

    logits: Tensor
    predicted_iou: Tensor
    points: Tensor


class MaskGenerator(Generator):
    """Segments everything in an image. Records and their order are those of `SAM2AutomaticMaskGenerator`."""

    def __init__(
        self,
        stages: Stages,
        config: GeneratorConfig,
        image_size: int,
        device: torch.device,
        batch_size: int = 1,
        workers: int = 1,
    ) -> None:
        """`image_size` is the side of the model's square input. `config` must have its defaults filled in.

        The encoder takes up to `batch_size` images at a time. Up to `workers` threads may call `segment` concurrently.
        """
        self.stages = stages
        self.config = config
        self.image_size = image_size
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self._stream = PerThreadStream(device)

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3], highest predicted IoU first (with crops: smallest crops first)."""
        return with_lists(self.segment(image, config=config)())

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[ImageFeatures]:
        """The features of up to `batch_size` images, in this thread's stream; `segment` needs the same thread.

        They do not depend on a configuration.
        """
        with self._stream():
            return self._encode(torch.cat([self.stages.preprocess(image) for image in images])).unbatch()

    @torch.inference_mode()
    def segment(
        self,
        image: NDArray[np.uint8],
        features: ImageFeatures | None = None,
        config: GeneratorConfig | None = None,
    ) -> PendingResult:
        """All work on the device. The returned function makes the records on the host.

        `features` are those of `encode`, or None to encode the image here. `config` is that of this call, or None for
        the generator's own; see `for_call`. None of its values compiles anything.
        """
        with self._stream():
            return self._find(image, features, for_call(config, self.config))

    @torch.inference_mode()
    def segment_with_less_memory(
        self, image: NDArray[np.uint8], config: GeneratorConfig | None = None
    ) -> PendingResult:
        """`segment` with an empty cache, and half the points at a time unless their number is compiled.

        Later images get the configured number again: memory that another image or process held may be free by then.
        """
        free_cached_memory(self.device)
        config = for_call(config, self.config)
        decoder = self.stages.decoder_for(config)
        if not (self.stages.fixed_points and decoder is self.stages.decoder):
            points = _points_at_once(config)
            config = replace(config, points_per_batch=max(1, min(points, decoder.at_once or points) // 2))
        with self._stream():
            return self._find(image, None, config)

    def require_device(self) -> None:
        """Raises what the device raises if an error has made it useless to this process."""
        require_device(self.device)

    def _find(self, image: NDArray[np.uint8], features: ImageFeatures | None, config: GeneratorConfig) -> PendingResult:
        """What `segment` answers, for a configuration with its defaults filled in."""
        size = image.shape[0], image.shape[1]
        crops = crops_of(size, config)
        search = Search(image, config, PointGrids(config), self.stages.decoder_for(config))
        known = [features, *[None] * (len(crops) - 1)]  # the first crop is the whole image
        found = [self._search(search, crop, i, known[i]) for i, crop in enumerate(crops)]
        candidates = Candidates.concatenate(found)
        del found  # logits of crops, which are in `candidates`, too
        crop_boxes = [crop.box for crop in crops]
        if len(crops) > 1:
            candidates = self._drop_duplicates_across_crops(candidates, crop_boxes, config.crop_nms_thresh)
        table = begin_copy(candidates.table)
        boundaries = self._find_run_boundaries(candidates, crops, size, config.mask_threshold)
        pending = partial(to_records, boundaries, size, table(), crop_boxes)
        return (lambda: without_small_regions(pending(), config)) if config.min_mask_region_area else pending

    def _encode(self, pixels: Tensor) -> ImageFeatures:
        """The features of pixels [n, 3, S, S]: a copy, because the next thread's image overwrites the encoder's."""
        with self.stages.encoding:
            return self.stages.encode(pixels).clone()

    def _search(self, search: Search, crop: Crop, crop_index: int, features: ImageFeatures | None) -> Candidates:
        """The masks of one crop, without duplicates."""
        config, decoder = search.config, search.decoder
        points = search.point_grids(crop)  # [P, 2]
        # in pixels of the model's input and of the photograph; copied before other work is queued, so it does not wait
        both = torch.stack([to_model_input(points, crop.size, self.image_size), uncrop_points(points, crop.box)])
        both = both.to(self.device, non_blocking=True)
        if features is None:
            features = self._encode(self.stages.preprocess(search.image[crop.y0 : crop.y1, crop.x0 : crop.x1]))
        batches = both.split(_points_at_once(config), dim=1)
        keep = partial(_keep_predicted_iou, threshold=config.pred_iou_thresh)
        found: list[Candidates] = []
        measured: list[MaskStats] = []
        stable = None  # bool [n] of a single batch, whose masks are not chosen twice
        with ExitStack() as held:
            held.enter_context(self.stages.decoding)
            prepared = decoder.prepare(features)
            for asked, points in batches:
                predicted_iou, kept, logits = predict(decoder, prepared, asked, keep)
                masks = PredictedMasks(logits, predicted_iou[kept.point, kept.mask], points[kept.point])
                if len(found) == len(batches) - 1:
                    held.close()  # another thread's image may use the decoder while these masks are filtered
                stats, candidates, stable = self._measure(masks, crop, crop_index, search)
                measured.append(stats)
                if len(batches) > 1:  # only masks that stay are kept in memory
                    candidates, stable = candidates.select(stable.nonzero()[:, 0]), None
                found.append(candidates)
        candidates = Candidates.concatenate(found)
        survivors = self.stages.suppress(candidates.boxes, candidates.predicted_iou, config.box_nms_thresh, stable)
        for stats in measured:
            stats.require_finite()  # here, because `suppress` has waited for the device
        return candidates.select(survivors)

    def _measure(
        self, masks: PredictedMasks, crop: Crop, crop_index: int, search: Search
    ) -> tuple[MaskStats, Candidates, Tensor]:
        """Statistics of masks, the masks as candidates, and which pass the stability threshold and are not near the
        crop's edge, bool [n]. Of a whole photograph, this does not wait for the device."""
        config, image_size = search.config, search.size
        stats = self.stages.mask_stats(masks.logits, crop.size, config.mask_threshold, config.stability_score_offset)
        whole = crop.size == image_size  # masks may touch the edges of the photograph
        stability = stats.stability
        table = tabulate(
            boxes=stats.boxes if whole else uncrop_boxes_xyxy(stats.boxes, crop.box),
            predicted_iou=masks.predicted_iou,
            points=masks.points,
            stability=stability,
            crop=crop_index,
        )
        # at a threshold of 0, sam2 also keeps empty masks, whose stability is NaN
        demanding = config.stability_score_thresh > 0
        keep = stability >= config.stability_score_thresh if demanding else torch.ones_like(stability, dtype=torch.bool)
        if not whole:
            keep &= ~is_box_near_crop_edge(stats.boxes, crop.box, [0, 0, image_size[1], image_size[0]])
        return stats, Candidates(masks.logits, table), keep

    def _drop_duplicates_across_crops(
        self, candidates: Candidates, crop_boxes: Sequence[list[int]], threshold: float
    ) -> Candidates:
        """Of masks whose boxes overlap by more than the threshold, keeps the one from the smaller crop."""
        areas = box_area(torch.tensor(crop_boxes, device=self.device))
        scores = 1 / areas[candidates.crop.long()]
        return candidates.select(self.stages.suppress(candidates.boxes, scores, threshold, None))

    def _find_run_boundaries(
        self, candidates: Candidates, crops: list[Crop], size: ImageSize, threshold: float
    ) -> list[RunBoundaries]:
        """Run boundaries of the candidates at the image's size, in their order, also for masks of crops."""
        if len(crops) == 1:
            return self.stages.run_boundaries(candidates.logits, crops[0], size, threshold)
        boundaries: dict[int, RunBoundaries] = {}
        for crop_index, crop in enumerate(crops):
            rows = (candidates.crop == crop_index).nonzero()[:, 0]
            found = self.stages.run_boundaries(candidates.logits.index_select(0, rows), crop, size, threshold)
            boundaries.update(zip(rows.tolist(), found, strict=True))
        return [boundaries[row] for row in range(len(candidates))]


def _keep_predicted_iou(predicted_iou: Tensor, threshold: float) -> Kept:
    """The masks of [P, M] above the threshold, ordered by point. A threshold of 0 keeps all, as in sam2."""
    keep = predicted_iou > threshold if threshold > 0 else torch.ones_like(predicted_iou, dtype=torch.bool)
    point, mask = keep.nonzero(as_tuple=True)
    return Kept(point, mask)


def _points_at_once(config: GeneratorConfig) -> int:
    """`points_per_batch` of a configuration that has its defaults filled in."""
    assert config.points_per_batch is not None
    return config.points_per_batch
