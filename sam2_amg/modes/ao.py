"""Mode ao: float32, without work that cannot change the output."""

from __future__ import annotations

from functools import partial

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.config import GeneratorConfig
from sam2_amg.modes.mask_stages import mask_stages
from sam2_amg.network.decoder import PlainDecoder
from sam2_amg.network.encoder import encode
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.generator import Stages
from sam2_amg.pipeline.preprocess import Preprocess
from sam2_amg.pipeline.streams import StreamOrderedLock


def ao_stages(model: SAM2Base, config: GeneratorConfig, device: torch.device) -> Stages:
    """sam2's own preprocessing and encoder, and the folded decoder. `config` must have its defaults filled in."""
    network = StreamOrderedLock(device)  # one for both: convolutions set precision for the process
    return Stages(
        preprocess=Preprocess(model.image_size, device),
        encode=float32_convolutions()(partial(encode, model)),
        decoder=FoldedDecoder(model),
        sam2_decoder=partial(PlainDecoder, model),
        encoding=network,
        decoding=network,
        **mask_stages(config, device),
    )
