"""Shared by modes fast and furious: the network as static-shape subgraphs, compiled or loaded from packages."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from sam2.modeling.sam2_base import SAM2Base
from triton.runtime import driver

from sam2_amg.compilation.static_decoder import StaticDecoder, StaticEncoder, StaticUpscaling
from sam2_amg.compilation.subgraphs import Subgraphs, SubgraphShapes, subgraph_shapes
from sam2_amg.config import GeneratorConfig
from sam2_amg.kernels.launch_configs import require_shared_memory
from sam2_amg.modes.mask_stages import mask_stages
from sam2_amg.network.decoder import Kept, PlainDecoder
from sam2_amg.network.fused_upscaling import FusedUpscaling
from sam2_amg.pipeline.generator import Stages
from sam2_amg.pipeline.preprocess import Preprocess, PreprocessOnDevice
from sam2_amg.pipeline.streams import StreamOrderedLock
from sam2_amg.postprocess.crops import Crop

_CPU_POINTS = 8  # points per call on a CPU
_POINTS_STEP = 128  # points per call on a GPU are a multiple of it


@dataclass(frozen=True)
class CompiledRecipe:
    """The differences between the compiled modes."""

    plain_subgraphs: Callable[[SAM2Base, torch.device, int], Subgraphs]  # from model, device and batch size
    gpu_points: int  # maximum points per call of the transformer on a GPU
    fp16x3: bool  # kernel operands: float32 as a sum of two float16 if True, else float16
    least_decibels: float  # minimum ratio of signal to difference from mode ao, for packages


def static_shapes(
    recipe: CompiledRecipe, image_size: int, config: GeneratorConfig, device: torch.device, batch_size: int
) -> SubgraphShapes:
    """The static shapes of a recipe on a device, for up to `batch_size` images encoded together.

    On a GPU, one call takes all points of a batch, up to `gpu_points`, which limits the memory of image tokens. More
    points are split evenly over calls. Fewer points, as in the grids of crops, are padded.
    """
    if device.type == "cuda":
        every = max(config.points_by_layer)
        steps = -(-min(every, config.points_per_batch or every) // _POINTS_STEP)
        calls = -(-steps * _POINTS_STEP // recipe.gpu_points)
        return subgraph_shapes(image_size, -(-steps // calls) * _POINTS_STEP, None, batch_size)
    return subgraph_shapes(image_size, _CPU_POINTS, _CPU_POINTS, batch_size)


def subgraphs_of(recipe: CompiledRecipe, model: SAM2Base, device: torch.device, batch_size: int) -> Subgraphs:
    """The uncompiled subgraphs of a recipe. Raises StartupError for a GPU with too little shared memory."""
    if device.type == "cuda":
        properties = driver.active.utils.get_device_properties(torch.cuda.current_device())
        require_shared_memory(properties["max_shared_mem"], torch.cuda.get_device_name(device), recipe.fp16x3)
    return recipe.plain_subgraphs(model, device, batch_size)


def compiled_stages(
    recipe: CompiledRecipe,
    model: SAM2Base,
    config: GeneratorConfig,
    device: torch.device,
    make_subgraphs: Callable[[SubgraphShapes], Subgraphs],
    batch_size: int = 1,
) -> Stages:
    """The stages around the subgraphs that `make_subgraphs` makes ready to run. Modifies the model.

    `config` must have its defaults filled in.
    """
    shapes = static_shapes(recipe, model.image_size, config, device, batch_size)
    mask_decoder = deepcopy(model.sam_mask_decoder)  # before subgraphs change its weights; 16 MiB
    subgraphs = make_subgraphs(shapes)
    _let_go(model)
    on_gpu = device.type == "cuda"
    if subgraphs.upscale is None:
        upscaling = FusedUpscaling(model.sam_mask_decoder, fp16x3=recipe.fp16x3)
        decoder = StaticDecoder(subgraphs, shapes.points, upscaling.masks, upscaling.dtype)
    else:
        decoder = StaticDecoder(subgraphs, shapes.points, StaticUpscaling(subgraphs.upscale, shapes.upscale[0][0]))
    stages = Stages(
        preprocess=(PreprocessOnDevice if on_gpu else Preprocess)(model.image_size, device),
        encode=StaticEncoder(subgraphs),
        decoder=decoder,
        sam2_decoder=partial(PlainDecoder, model, mask_decoder=mask_decoder),
        encoding=StreamOrderedLock(device),
        decoding=StreamOrderedLock(device),
        fixed_points=True,
        **mask_stages(config, device),
    )
    if on_gpu:
        _load_kernels(stages, model.image_size, device)
        torch.cuda.empty_cache()  # frees memory that only building needed
    return stages


def _let_go(model: SAM2Base) -> None:
    """Releases the video modules and the encoder: the subgraphs hold the encoder, or a package does.

    This frees 850 MiB for large.
    """
    for name in ("memory_attention", "memory_encoder", "image_encoder"):
        setattr(model, name, None)


def _load_kernels(stages: Stages, image_size: int, device: torch.device) -> None:
    """Runs the stages after the transformer once, because their kernels compile on the first call."""
    pixels = torch.zeros(1, 3, image_size, image_size, device=device)
    prepared = stages.decoder.prepare(stages.encode(pixels))
    attended = stages.decoder.attend(prepared, torch.zeros(1, 2, device=device))
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    logits = stages.decoder.predict_masks(attended, Kept(zero, zero))
    size = logits.shape[1], logits.shape[2]
    stages.mask_stats(logits, size, 0.0, 1.0)
    stages.run_boundaries(logits, Crop(0, 0, size[1], size[0], layer=0), size, 0.0)
