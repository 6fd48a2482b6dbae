"""The one place that knows what each mode is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from triton.runtime import driver

from sam2_amg.baseline import BaselineGenerator
from sam2_amg.compilation.jit import compile_subgraphs
from sam2_amg.compilation.static_decoder import StaticDecoder, StaticEncoder, StaticUpscaling
from sam2_amg.compilation.subgraphs import Subgraphs, SubgraphShapes, plain_subgraphs, subgraph_shapes
from sam2_amg.config import COMPILED_MODES, GeneratorConfig, Mode
from sam2_amg.errors import StartupError
from sam2_amg.kernels import mask_stats as kernel_stats
from sam2_amg.kernels import rle as rle_kernel
from sam2_amg.kernels.launch_configs import require_shared_memory
from sam2_amg.network.decoder import Kept
from sam2_amg.network.encoder import encode
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16_decoder import Fp16Decoder
from sam2_amg.network.fp16_encoder import Fp16Encoder
from sam2_amg.network.fp16x3_image_tokens import Fp16x3ImageTokens
from sam2_amg.network.fp16x3_linear import use_fp16x3_encoder
from sam2_amg.network.fused_upscaling import FusedUpscaling
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.generator import MaskGenerator, Stages
from sam2_amg.pipeline.preprocess import Preprocess, PreprocessOnDevice
from sam2_amg.pipeline.streams import StreamOrderedLock
from sam2_amg.postprocess import mask_stats, rle
from sam2_amg.postprocess.crops import Crop
from sam2_amg.postprocess.nms import suppress

logger = logging.getLogger(__name__)

MakeSubgraphs = Callable[[SAM2Base, Mode, SubgraphShapes, torch.device], Subgraphs]

# On a CPU few points at a time stay in cache, and buffers of this size are reused instead of mapped anew.
_POINTS_PER_BATCH = {"cpu": 8, "cuda": 64}
_CPU_MASK_MEMORY_MIB = 32
# The fixed shapes of subgraphs: on a GPU many points at a time spare launches.
_CPU_POINTS = 8
_MOST_POINTS_PER_BATCH = 4096  # whose masks take 3.2 GB on a GPU, if all are kept
_GPU_POINTS = {Mode.FAST: 256, Mode.FURIOUS: 1024}  # whose image tokens take 1.1 and 2.1 GB
_POINTS_STEP = 128
_GPU_WORKERS = 2  # threads that keep a GPU busy: while one image is in the network, another is past it
_BASELINE_POINTS_PER_BATCH = 64  # sam2's default


def fill_in(config: GeneratorConfig, mode: Mode, device: torch.device) -> GeneratorConfig:
    """`config` with the defaults that depend on mode and device. Raises StartupError for what they do not know."""
    mode.require_device(device.type)
    if mode is Mode.BASELINE:
        return replace(config, points_per_batch=config.points_per_batch or _BASELINE_POINTS_PER_BATCH)
    on_gpu = mode in COMPILED_MODES and device.type == "cuda"
    every = min(config.points_per_side**2, _MOST_POINTS_PER_BATCH) if on_gpu else None
    config = replace(config, points_per_batch=config.points_per_batch or every or _POINTS_PER_BATCH[device.type])
    if device.type == "cpu":
        return replace(config, mask_memory_mib=config.mask_memory_mib or _CPU_MASK_MEMORY_MIB)
    if config.mask_memory_mib is not None:
        raise StartupError("--mask_memory_mib is for --device cpu; on cuda no upsampled mask is stored: leave it out")
    return config


def mask_stages(config: GeneratorConfig, device: torch.device) -> dict[str, Any]:
    """What follows the decoder: kernels that store no upsampled mask on a GPU, plain torch in bounded memory on a CPU.

    `config` has its defaults filled in.
    """
    if device.type == "cuda":
        return {
            "mask_stats": kernel_stats.mask_stats,
            "suppress": suppress,
            "run_boundaries": rle_kernel.run_boundaries,
        }
    assert config.mask_memory_mib is not None
    memory = config.mask_memory_mib << 20
    return {
        "mask_stats": partial(mask_stats.mask_stats, memory=memory),
        "suppress": suppress,
        "run_boundaries": partial(rle.run_boundaries, memory=memory),
    }


def ao_stages(model: SAM2Base, config: GeneratorConfig, device: torch.device) -> Stages:
    """Mode ao: float32, sam2's own preprocessing and encoder, the folded decoder."""
    return Stages(
        preprocess=Preprocess(model.image_size, device),
        encode=float32_convolutions()(partial(encode, model)),
        decoder=FoldedDecoder(model),
        network=StreamOrderedLock(device),
        **mask_stages(config, device),
    )


def static_shapes(
    mode: Mode, image_size: int, config: GeneratorConfig, device: torch.device, batch_size: int = 1
) -> SubgraphShapes:
    """The shapes that modes fast and furious fix on a device, where up to `batch_size` images are encoded together.

    A subgraph takes all points of a batch where there is room for their image tokens: that spares launches, and waits.
    Where there is not, calls share them evenly. (Crops whose grids are smaller than the image's fill it up.)
    """
    if device.type == "cuda":
        every = config.points_per_side**2
        steps = -(-min(every, config.points_per_batch or every) // _POINTS_STEP)
        calls = -(-steps * _POINTS_STEP // _GPU_POINTS[mode])
        return subgraph_shapes(image_size, -(-steps // calls) * _POINTS_STEP, None, batch_size)
    return subgraph_shapes(image_size, _CPU_POINTS, _CPU_POINTS, batch_size)


def fast_subgraphs(model: SAM2Base, device: torch.device, batch_size: int = 1) -> Subgraphs:
    """The plain subgraphs of mode fast: what is compiled, or exported.

    On a GPU the encoder's linear layers and attention, the decoder's image side and its upscaling become products of
    fp16x3; `model` is changed by that.
    """
    if device.type == "cpu":
        return plain_subgraphs(model, FoldedDecoder(model), upscale=True, batch_size=batch_size)
    use_fp16x3_encoder(model.image_encoder)
    decoder = FoldedDecoder(model, FusedUpscaling(model.sam_mask_decoder, fp16x3=True), Fp16x3ImageTokens)
    return plain_subgraphs(model, decoder, upscale=False, batch_size=batch_size)


def furious_subgraphs(model: SAM2Base, batch_size: int = 1) -> Subgraphs:
    """The plain subgraphs of mode furious; `model` is changed by that: products are of float16 nearly everywhere."""
    decoder = Fp16Decoder(model)
    encoder = Fp16Encoder(model)
    return plain_subgraphs(model, decoder, upscale=False, encoder=encoder, batch_size=batch_size)


def subgraphs_of(model: SAM2Base, mode: Mode, device: torch.device, batch_size: int) -> Subgraphs:
    """The plain subgraphs of a mode that has them. Raises StartupError where it is not made for the device."""
    mode.require_device(device.type)
    if device.type == "cuda":
        properties = driver.active.utils.get_device_properties(torch.cuda.current_device())
        require_shared_memory(properties["max_shared_mem"], torch.cuda.get_device_name(device), mode is Mode.FAST)
    return furious_subgraphs(model, batch_size) if mode is Mode.FURIOUS else fast_subgraphs(model, device, batch_size)


def compile_mode(
    model: SAM2Base,
    mode: Mode,
    shapes: SubgraphShapes,
    device: torch.device,
    report: Callable[[str], None] = logger.info,
) -> Subgraphs:
    """The subgraphs of a mode, compiled; `report` hears what is being done. Raises StartupError where it cannot be."""
    return compile_subgraphs(subgraphs_of(model, mode, device, shapes.batch_size), shapes, device, report)


def static_stages(
    model: SAM2Base,
    mode: Mode,
    config: GeneratorConfig,
    device: torch.device,
    make_subgraphs: MakeSubgraphs,
    batch_size: int,
) -> Stages:
    """Modes fast and furious: the network in static-shape subgraphs, compiled or loaded; on a GPU, in CUDA graphs."""
    shapes = static_shapes(mode, model.image_size, config, device, batch_size)
    subgraphs = make_subgraphs(model, mode, shapes, device)
    _let_go(model)
    on_gpu = device.type == "cuda"
    if subgraphs.upscale is None:
        upscale: Callable[..., Tensor] = FusedUpscaling(model.sam_mask_decoder, fp16x3=mode is Mode.FAST).masks
    else:
        upscale = StaticUpscaling(subgraphs.upscale, shapes.upscale[0][0])
    stages = Stages(
        preprocess=(PreprocessOnDevice if on_gpu else Preprocess)(model.image_size, device),
        encode=StaticEncoder(subgraphs),
        decoder=StaticDecoder(subgraphs, shapes.points, upscale),
        network=StreamOrderedLock(device),
        **mask_stages(config, device),
    )
    if on_gpu:
        _load_kernels(stages, model.image_size, device)
        torch.cuda.empty_cache()  # what building left behind
    return stages


def _let_go(model: SAM2Base) -> None:
    """Lets go of what subgraphs do not need: what follows objects through video, and the encoder, which they hold
    themselves, or have in a package: 850 MiB of large."""
    for name in ("memory_attention", "memory_encoder", "image_encoder"):
        setattr(model, name, None)


def _load_kernels(stages: Stages, image_size: int, device: torch.device) -> None:
    """Runs what follows the transformer once, so that its kernels, which compile when first called, are there."""
    pixels = torch.zeros(1, 3, image_size, image_size, device=device)
    prepared = stages.decoder.prepare(stages.encode(pixels))
    attended = stages.decoder.attend(prepared, torch.zeros(1, 2, device=device))
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    logits = stages.decoder.predict_masks(attended, Kept(zero, zero))
    size = logits.shape[1], logits.shape[2]
    stages.mask_stats(logits, size, 0.0, 1.0)
    stages.run_boundaries(logits, Crop(0, 0, size[1], size[0], layer=0), size, 0.0)


def build_stages(
    model: SAM2Base,
    mode: Mode,
    config: GeneratorConfig,
    device: torch.device,
    make_subgraphs: MakeSubgraphs,
    batch_size: int = 1,
) -> Stages:
    """The stages of any mode but baseline, which is sam2's own; `config` has its defaults filled in."""
    with torch.inference_mode(), float32_convolutions():
        if mode is Mode.AO:
            return ao_stages(model, config, device)
        return static_stages(model, mode, config, device, make_subgraphs, batch_size)


def build_generator(
    model: SAM2Base,
    mode: Mode,
    config: GeneratorConfig,
    device: torch.device,
    make_subgraphs: MakeSubgraphs = compile_mode,
    batch_size: int = 1,
) -> Generator:
    """The generator of a mode, around a model that is already on `device`; fast and furious change it, and keep it.

    `make_subgraphs` makes the subgraphs that run, where a mode has them: it compiles, or loads packages. Up to
    `batch_size` images are encoded together, but in baseline.
    """
    config = fill_in(config, mode, device)
    if mode is Mode.BASELINE:
        return BaselineGenerator(model, config)
    stages = build_stages(model, mode, config, device, make_subgraphs, batch_size)
    # elsewhere each image keeps the device busy by itself
    workers = _GPU_WORKERS if mode in COMPILED_MODES and device.type == "cuda" else 1
    return MaskGenerator(stages, config, model.image_size, device, batch_size, workers)
